"""Where a training stands, counted in training batches and read from the Trainer.

Batches, not optimizer steps: ``trainer.global_step`` counts fewer with gradient accumulation and more with several
optimizers, but the data depend on the batch alone.
"""

import lightning.pytorch as L


def batches_done(trainer: L.Trainer | None) -> int:
    """The number of batches trained on so far, over all epochs and resumed runs; 0 without a trainer.

    It is right from the moment the loops are restored, hence when a resumed training asks for its loader. Of
    Lightning's counters only ``processed`` is: ``completed`` lacks the last batch if the checkpoint was saved in
    ``on_train_batch_end``, and ``ready`` has one too many if it was saved after a failure within a step.

    Example:
        >>> batches_done(None)
        0
    """
    return 0 if trainer is None else int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]  # of its own kind of progress


def batch_in_force(trainer: L.Trainer) -> int:
    """The index of the batch being trained on or, between batches (validation, test), of the last one; 0 before any.

    ``epoch_loop.total_batch_idx`` means the same but stays one too high after resuming from a failure within a step.

    Example:
        >>> batch_in_force(L.Trainer(barebones=True))
        0
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    earlier_epochs = batches_done(trainer) - progress.current.processed  # type: ignore[attr-defined]  # the same
    return max(0, int(earlier_epochs + progress.current.ready - 1))
