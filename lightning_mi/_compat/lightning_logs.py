"""Private names of Lightning's logging."""

from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from torch import Tensor

from lightning_mi._compat.missing import warn_missing


def logged_step(trainer: L.Trainer) -> int:
    """The x-axis position under which Lightning logs the metrics of the current training batch.

    It counts batches that updated the parameters. ``trainer.global_step`` counts optimizer steps: several for each
    batch with several optimizers. Read in Lightning 2.6.6: ``_TrainingEpochLoop._batches_that_stepped``.

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

    The first call for a name in an epoch calls ``LightningModule.log``, which registers a result. Later calls update
    this result directly, which saves 0.3 ms a value for checks and copies (benchmarks/trainer_overhead.py). Read in
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
        warn_missing("_logger_connector", "A checkpoint does not contain the row that is logged right after it.")
        return None
