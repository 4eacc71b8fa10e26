"""Work still owed when a checkpoint is saved at the end of a batch: validation or epoch end.

Lightning takes a batch whose end a checkpoint was saved in for done, and the validation and the epoch's end after it
too: a training that goes on would leave them out.
"""

from typing import Any, Literal

import lightning.pytorch as L

Pending = Literal["validation", "epoch end"]

_MIDWAY = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # a validation that is begun anew


def pending_after_batch(trainer: L.Trainer) -> Pending | None:
    """Work still owed when a checkpoint is saved at the end of a training batch, or of a batch of its validation.

    None if training goes on, and at any other moment. A validation in progress is owed as a whole.

    Example:
        >>> pending_after_batch(L.Trainer(barebones=True)) is None
        True
    """
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    batches: Any = loop.batch_progress.total
    evaluated: Any = loop.val_loop.batch_progress.current
    validating = trainer.validating and evaluated.completed < evaluated.ready
    if fetcher is None or not (validating or (trainer.training and batches.completed == batches.processed - 1)):
        return None
    if trainer.should_stop or trainer._val_check_time_interval is not None:  # type: ignore[attr-defined]  # set in setup
        return None  # a training that goes on does not stop there, nor validate at that minute
    if loop._should_check_val_fx(fetcher):
        return "validation"
    return "epoch end" if loop._num_ready_batches_reached() else None


def finish_batch(fit_loop: dict[str, Any], pending: Pending) -> None:
    """Change a checkpoint's state of the loops, in place, to that at the end of its batch, and no further.

    Args:
        fit_loop: The state.
        due: What follows.
    """
    batches = fit_loop["epoch_loop.batch_progress"]
    for counts in (batches["total"], batches["current"]):
        counts["completed"] = counts["processed"]
    if pending == "validation":
        validation = fit_loop["epoch_loop.val_loop.batch_progress"]
        validation["total"], validation["current"], validation["is_last_batch"] = {**_MIDWAY}, {**_MIDWAY}, False
    else:
        fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1  # Lightning counts it after a validation


def clear_restart_flags(trainer: L.Trainer, pending: Pending | None) -> None:
    """At the start of a training that goes on within an epoch: let that one end as any other does.

    Lightning would pass over the schedulers that wait for a plateau, and train a batch before the end that is due.
    """
    loop = trainer.fit_loop
    if not loop.restarted_on_epoch_end:
        loop._restarting = False
    if pending == "epoch end":
        loop.epoch_loop.val_loop._has_run = True


def epoch_has_ended(trainer: L.Trainer) -> None:
    """At that epoch's end: the next one is an ordinary one."""
    trainer.fit_loop.epoch_loop.on_iteration_done()
