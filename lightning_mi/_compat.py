"""Private and undocumented names of Lightning and torch: one typed function for each fact.

Every other module uses public names only (tests/test_compat.py scans for private ones). Each function names the release
in which its fact was read. If a newer release has dropped the name, the function warns with
:class:`~lightning_mi.exceptions.MIWarning` and falls back, where a fallback exists.
"""

import warnings
from collections.abc import Iterable
from typing import Any, Literal

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from torch import Tensor, nn

from lightning_mi.exceptions import MIWarning

# Lightning: logging.


def logged_step(trainer: L.Trainer) -> int:
    """The x-axis position under which Lightning logs the metrics of the current training batch.

    It counts batches that updated the parameters. ``trainer.global_step`` counts optimizer steps, of which a batch has
    as many as there are optimizers. Read in Lightning 2.6.6: ``_TrainingEpochLoop._batches_that_stepped``.

    Example:
        >>> logged_step(L.Trainer(barebones=True))
        0
    """
    try:
        return int(trainer.fit_loop.epoch_loop._batches_that_stepped)
    except AttributeError:
        warn_missing("_batches_that_stepped", "Metrics are logged at trainer.global_step.")
        return trainer.global_step


def is_logged(trainer: L.Trainer) -> bool:
    """True if Lightning writes the metrics of the current training batch to the loggers.

    Read in Lightning 2.6.6: ``_LoggerConnector.should_update_logs``.

    Example:
        >>> is_logged(L.Trainer(log_every_n_steps=50, logger=False, accelerator="cpu"))
        False
    """
    return (logged_step(trainer) + 1) % max(trainer.log_every_n_steps, 1) == 0 or trainer.should_stop  # type: ignore[attr-defined]


def log_step(module: L.LightningModule, name: str, value: Tensor | float, prog_bar: bool) -> None:
    """Log a value of a training step, as ``LightningModule.log`` does.

    The first call for a name in an epoch is that method. Later calls write into the result that it registered, without
    checking and copying the arguments again: that takes 0.3 ms a value (benchmarks/trainer_overhead.py). Read in
    Lightning 2.6.6: ``Trainer._results``, whose keys are ``<hook>.<name>``.

    Args:
        module: The module, in its ``training_step``.
        name: The name of the metric.
        value: A scalar.
        prog_bar: True to show it in the progress bar.
    """
    results = getattr(module.trainer, "_results", None) if FAST_LOGS else None
    key = f"training_step.{name}"
    entry = None if results is None else results.get(key)
    if results is None or entry is None or entry.has_reset or entry.meta.prog_bar != prog_bar:
        module.log(name, value, prog_bar=prog_bar)
        return
    scalar = value.detach() if isinstance(value, Tensor) else torch.tensor(value, device=entry.value.device)
    results.update_metrics(key, scalar, 1)


FAST_LOGS = True  # False: every value goes through LightningModule.log


def pending_log_row(trainer: L.Trainer) -> tuple[dict[str, Any], int] | None:
    """Metrics that Lightning logs as soon as the current hook returns, with their x-axis position.

    Callbacks save checkpoints in hooks that run just before Lightning writes the row of the step or of the epoch.
    Read in Lightning 2.6.6: ``_LoggerConnector.update_train_step_metrics`` and ``update_train_epoch_metrics``.

    Returns:
        The values by name, as plain numbers, and the step; None if no row is pending.
    """
    try:
        connector, loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
        epoch_ended = connector._first_loop_iter is None
        if not epoch_ended and (loop._should_accumulate() or not connector.should_update_logs):
            return None
        values = convert_tensors_to_scalars(connector.metrics["log"]) | {"epoch": trainer.current_epoch}
        return values, logged_step(trainer) - epoch_ended
    except AttributeError:
        warn_missing("_logger_connector", "A checkpoint does not hold the row that is logged right after it.")
        return None


# Lightning: progress of the loops.


def is_accumulating(trainer: L.Trainer) -> bool:
    """True if the current training batch adds to the gradients without a parameter update.

    Read in Lightning 2.6.6: ``_FitLoop._should_accumulate``.
    """
    try:
        return bool(trainer.fit_loop._should_accumulate())
    except AttributeError:
        warn_missing("_should_accumulate", "The last batch of an epoch may count as accumulating.")
        return bool((batch_in_force(trainer) + 1) % trainer.accumulate_grad_batches)


def batches_done(trainer: L.Trainer | None) -> int:
    """The number of batches trained on, over all epochs and resumed runs; 0 without a trainer.

    Batches, not optimizer steps: ``trainer.global_step`` counts fewer with gradient accumulation and more with several
    optimizers.

    The count is right as soon as the loops are restored, so also when a resumed training requests its dataloader. In
    Lightning 2.6.6 only ``processed`` is: ``completed`` lacks the last batch if the checkpoint was saved in
    ``on_train_batch_end``, and ``ready`` has one too many if it was saved after a failure within a step.

    Example:
        >>> batches_done(None)
        0
    """
    return 0 if trainer is None else int(_batch_progress(trainer).total.processed)


def batch_in_force(trainer: L.Trainer) -> int:
    """The index of the current training batch or, between batches (validation, test), of the last one; 0 before any.

    ``epoch_loop.total_batch_idx`` means the same, but in Lightning 2.6.6 it stays one too high after resuming from a
    failure within a step.

    Example:
        >>> batch_in_force(L.Trainer(barebones=True))
        0
    """
    current = _batch_progress(trainer).current
    earlier_epochs = batches_done(trainer) - current.processed
    return max(0, int(earlier_epochs + current.ready - 1))


Pending = Literal["validation", "epoch end"]


def pending_after_batch(trainer: L.Trainer) -> Pending | None:
    """Work still owed when a checkpoint is saved at the end of a training batch, or during its validation.

    A validation in progress is owed as a whole. Read in Lightning 2.6.6: ``_TrainingEpochLoop.on_advance_end``.

    Returns:
        ``"validation"``, ``"epoch end"``, or None: training goes on with the next batch, or no batch is ending.

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
    """Change a checkpoint's loop state, in place, to that after the batch and before the pending work.

    Without this, Lightning counts a batch in whose end the checkpoint was saved as done, and with it the validation and
    the end of the epoch: a resumed training would skip both. Read in Lightning 2.6.6:
    ``_TrainingEpochLoop.update_restart_stage``.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``.
        pending: The work that :func:`pending_after_batch` found when the checkpoint was saved.
    """
    progress = fit_loop["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts["completed"] = counts["processed"]
    if pending == "validation":
        # One batch started and none done: Lightning restarts a validation that was interrupted.
        interrupted = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        validation = fit_loop["epoch_loop.val_loop.batch_progress"]
        validation |= {"total": {**interrupted}, "current": {**interrupted}, "is_last_batch": False}
    else:
        fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1  # Lightning counts it after a validation


def clear_restart_flags(trainer: L.Trainer, pending: Pending | None) -> None:
    """Let an epoch that is resumed in its middle end as any other does.

    With its restart flags set, Lightning 2.6.6 skips schedulers that wait for a plateau at the end of that epoch, and
    trains one batch more before an epoch end that is pending (``_FitLoop._restarting``, ``_EvaluationLoop._has_run``).
    """
    loop = trainer.fit_loop
    if not loop.restarted_on_epoch_end:
        loop._restarting = False
    if pending == "epoch end":
        loop.epoch_loop.val_loop._has_run = True


def finish_restarted_epoch(trainer: L.Trainer) -> None:
    """End the restart of an epoch of which only the end was pending. Read in Lightning 2.6.6."""
    trainer.fit_loop.epoch_loop.on_iteration_done()


def _batch_progress(trainer: L.Trainer) -> Any:
    return trainer.fit_loop.epoch_loop.batch_progress


# Lightning: data.


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


# torch.


def unwrap_compiled(module: Any) -> Any:
    """The module that ``torch.compile(module)`` wraps; any other object as it is. Read in torch 2.14: ``_orig_mod``.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> unwrap_compiled(torch.compile(linear)) is linear, unwrap_compiled(linear) is linear
        (True, True)
    """
    return getattr(module, "_orig_mod", module)


def module_settings(module: nn.Module) -> dict[str, Any]:
    """A module's attributes other than its parameters, buffers and submodules. Read in torch 2.14.

    Example:
        >>> {name: module_settings(nn.Linear(2, 3))[name] for name in ("in_features", "training")}
        {'in_features': 2, 'training': True}
    """
    return {name: value for name, value in vars(module).items() if name not in ("_parameters", "_buffers", "_modules")}


def add_summaries(writer: Any, summaries: Iterable[Any]) -> None:
    """Write protobuf summaries with a ``SummaryWriter``. Read in torch 2.14: ``SummaryWriter._get_file_writer``."""
    try:
        file_writer = writer._get_file_writer()
    except AttributeError:
        warn_missing("_get_file_writer", "The run is not in TensorBoard's HPARAMS table.")
        return
    for summary in summaries:
        file_writer.add_summary(summary)


def warn_missing(name: str, consequence: str) -> None:
    """Warn that an installed release has dropped a private name."""
    warnings.warn(
        f"Lightning {L.__version__} with torch {torch.__version__} has no `{name}` any more. {consequence} Install the "
        "releases that lightning_mi was tested with (pyproject.toml), or a newer lightning_mi.",
        MIWarning,
        stacklevel=3,
    )
