"""Private names of Lightning's loops, modules and data transfer."""

import logging
from typing import Any, Literal, cast

import lightning.pytorch as L
from lightning.pytorch.callbacks import WeightAveraging

from lightning_mi._compat.missing import warn_missing


def is_accumulating(trainer: L.Trainer) -> bool:
    """True if the current training batch adds to the gradients without a parameter update.

    Read in Lightning 2.6.6: ``_FitLoop._should_accumulate``.
    """
    try:
        return bool(trainer.fit_loop._should_accumulate())
    except AttributeError:
        warn_missing("_should_accumulate", "The last batch of an epoch may count as accumulating.")
        return bool((current_batch_index(trainer) + 1) % trainer.accumulate_grad_batches)


def batches_done(trainer: L.Trainer | None) -> int:
    """The number of batches trained on, over all epochs and resumed runs; 0 without a trainer.

    Batches, not optimizer steps: ``trainer.global_step`` counts fewer with gradient accumulation and more with several
    optimizers.

    The count is correct once the loops are restored, also when a resumed training requests its dataloader. In Lightning
    2.6.6 only ``processed`` is correct then: ``completed`` lacks the last batch if the checkpoint was saved in
    ``on_train_batch_end``, and ``ready`` is one too high if it was saved after a failure within a step.

    Example:
        >>> batches_done(None)
        0
    """
    return 0 if trainer is None else int(_batch_progress(trainer).total.processed)


def current_batch_index(trainer: L.Trainer) -> int:
    """The index of the current training batch; between batches (validation, test), of the last one; 0 before any.

    ``epoch_loop.total_batch_idx`` means the same, but in Lightning 2.6.6 it stays one too high after resuming from a
    failure within a step.

    Example:
        >>> current_batch_index(L.Trainer(barebones=True))
        0
    """
    current = _batch_progress(trainer).current
    earlier_epochs = batches_done(trainer) - current.processed
    return max(0, int(earlier_epochs + current.ready - 1))


Pending = Literal["validation", "epoch end"]


def pending_after_batch(trainer: L.Trainer) -> Pending | None:
    """Work that is pending when a checkpoint is saved at the end of a training batch, or during its validation.

    A validation in progress counts as not started. Read in Lightning 2.6.6: ``_TrainingEpochLoop.on_advance_end``.

    Returns:
        ``"validation"``, ``"epoch end"``, or None: training continues with the next batch, or no batch is ending.

    Example:
        >>> pending_after_batch(L.Trainer(barebones=True)) is None
        True
    """
    try:
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        validation: Any = loop.val_loop.batch_progress.current
        total = _batch_progress(trainer).total
        batch_is_ending = trainer.training and total.completed == total.processed - 1
        is_validating = trainer.validating and validation.completed < validation.ready
        if fetcher is None or not (is_validating or batch_is_ending):
            return None
        # A resumed training does not stop where this one does, nor validate at the same minute.
        if trainer.should_stop or trainer._val_check_time_interval is not None:  # type: ignore[attr-defined]
            return None
        if loop._should_check_val_fx(fetcher):
            return "validation"
        return "epoch end" if loop._num_ready_batches_reached() else None
    except AttributeError:
        warn_missing("_should_check_val_fx", "A resumed training may skip the validation at the checkpoint's batch.")
        return None


def close_batch(fit_loop: dict[str, Any], pending: Pending) -> None:
    """Mark the current batch as done in a checkpoint's loop state, in place; the pending work is repeated on resume.

    Without this, Lightning also counts the validation and the end of the epoch as done if the checkpoint was saved at
    the end of a batch: a resumed training would skip both. Read in Lightning 2.6.6:
    ``_TrainingEpochLoop.update_restart_stage``.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``.
        pending: The work that :func:`pending_after_batch` found when the checkpoint was saved.
    """
    progress = fit_loop["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts["completed"] = counts["processed"]
    if pending == "validation":
        # One batch started and none done: Lightning then restarts the validation.
        interrupted = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        validation = fit_loop["epoch_loop.val_loop.batch_progress"]
        validation |= {"total": {**interrupted}, "current": {**interrupted}, "is_last_batch": False}
    else:
        fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1  # Lightning counts it after a validation


def clear_restart_flags(trainer: L.Trainer, pending: Pending | None) -> None:
    """Clear Lightning's restart flags, so that a resumed epoch ends like any other.

    With these flags set, Lightning 2.6.6 skips plateau schedulers (``ReduceLROnPlateau``) at the end of that epoch, and
    trains one extra batch before a pending epoch end (``_FitLoop._restarting``, ``_EvaluationLoop._has_run``).
    """
    loop = trainer.fit_loop
    if not loop.restarted_on_epoch_end:
        loop._restarting = False
    if pending == "epoch end":
        loop.epoch_loop.val_loop._has_run = True


def finish_restarted_epoch(trainer: L.Trainer) -> None:
    """Finish the restart of an epoch if only its end was pending. Read in Lightning 2.6.6."""
    trainer.fit_loop.epoch_loop.on_iteration_done()


def _batch_progress(trainer: L.Trainer) -> Any:
    return trainer.fit_loop.epoch_loop.batch_progress


def transfer_batch(trainer: L.Trainer, module: L.LightningModule, batch: Any) -> Any:
    """Convert a batch and move it to the device, through all hooks, as the trainer does.

    Read in Lightning 2.6.6: ``LightningModule._on_before_batch_transfer``, which calls the hook of the module or of the
    data module.
    """
    batch = trainer.precision_plugin.convert_input(batch)
    try:
        batch = module._on_before_batch_transfer(batch)
    except AttributeError:
        warn_missing("_on_before_batch_transfer", "The hook on_before_batch_transfer is not called.")
    return trainer.strategy.batch_to_device(batch)


def silence_cloud_advertisement() -> None:
    """Filter out the log line in which Lightning advertises its cloud service."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return not (record.levelno == logging.INFO and "Tip: For seamless cloud" in str(record.msg))


def attached_trainer(module: L.LightningModule) -> L.Trainer | None:
    """The trainer that a module is attached to; None without one, where ``module.trainer`` raises.

    Example:
        >>> attached_trainer(L.LightningModule()) is None
        True
    """
    return getattr(module, "_trainer", None)


def hyper_parameters(module: L.LightningModule) -> list[dict[str, Any]]:
    """The dictionaries behind ``hparams`` and ``hparams_initial``; the public ``hparams_initial`` is a copy.

    Example:
        >>> hyper_parameters(L.LightningModule())
        []
    """
    found = (getattr(module, "_hparams", None), getattr(module, "_hparams_initial", None))
    return [saved for saved in found if saved is not None]


def averaged_module(callback: WeightAveraging) -> L.LightningModule:
    """The module with the averaged weights of a callback, during a fit. Read in Lightning 2.6.6: ``setup``."""
    average = callback._average_model
    assert average is not None
    return cast("L.LightningModule", average.module)
