"""A run's row of TensorBoard's HPARAMS table: its hyper-parameters and metric columns."""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import nn

from lightning_mi._compat.torch_names import add_summaries
from lightning_mi.bounds import AbstractBound
from lightning_mi.callbacks.probes import Probes
from lightning_mi.critics import AbstractCritic
from lightning_mi.module import MIEstimationModule
from lightning_mi.pairs import AbstractPairing
from lightning_mi.regularizers import AbstractRegularizer, log_normalizer_target

Plain = str | int | float | bool


def check_plain(hparams: Mapping[str, Any]) -> dict[str, Plain]:
    """Check that a user's columns have plain values.

    Raises:
        TypeError: A value is not plain.

    Example:
        >>> check_plain({"layers": [8, 8]})
        Traceback (most recent call last):
        TypeError: Got hparams with layers=[8, 8]: a column of the HPARAMS table is a string, a number or a bool. ...
    """
    for name, value in hparams.items():
        if not isinstance(value, Plain):
            raise TypeError(
                f"Got hparams with {name}={value!r}: a column of the HPARAMS table is a string, a number or a bool. "
                "Convert it, such as with str()."
            )
    return dict(hparams)


def hparams_row(trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Plain]:
    """A run's hyper-parameters as plain values, with the same columns for all runs of a module.

    Arguments that a subclass adds are included. The parts of :class:`MIEstimationModule` appear by class name.
    """
    bound, regularizer = find_part(pl_module, AbstractBound), find_part(pl_module, AbstractRegularizer)
    summary: dict[str, Any] = {
        "bound": _name(bound),
        "regularizer": _name(regularizer),
        "weight": 0.0 if regularizer is None else _weight(regularizer),
        "target": None if bound is None else (0.0 if regularizer is None else regularizer.target),
        "critic": _name(find_part(pl_module, AbstractCritic)),
        "pairs": _name(find_part(pl_module, AbstractPairing)),
        "batch_size": getattr(getattr(trainer, "datamodule", None), "batch_size", None),
    }
    if trainer.optimizers:
        summary["optimizer"] = type(trainer.optimizers[0]).__name__
        summary["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
    if (seed := os.environ.get("PL_GLOBAL_SEED")) is not None:  # set by seed_everything
        summary["seed"] = int(seed)
    summarized = inspect.signature(MIEstimationModule).parameters
    added = {name: value for name, value in pl_module.hparams.items() if name not in summarized and name[0] != "_"}
    return {name: value for name, value in (summary | added).items() if isinstance(value, Plain)}


def default_metrics(trainer: L.Trainer, pl_module: L.LightningModule) -> list[str]:
    """The default metric columns: the metrics that a run can log."""
    stages = ["val", "test"] if trainer.enable_validation else ["test"]
    metrics = ["train/mi", "train/log_normalizer", *(f"{stage}/mi" for stage in stages)]
    if hasattr(find_part(pl_module, AbstractPairing), "predict"):
        metrics += [f"{stage}/accuracy" for stage in stages]
    if any(isinstance(callback, Probes) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        metrics += ["probe/nearest_neighbor", "probe/accuracy"]
    if getattr(pl_module, "probe", None) is not None:
        metrics.append("probe/online_accuracy")
    return metrics


def write_row(logger: Logger, row: Mapping[str, Plain], metrics: Sequence[str], pl_module: L.LightningModule) -> None:
    """Write a run's row to a TensorBoard logger; to another logger, the hyper-parameters that Lightning does not log.

    Unlike ``TensorBoardLogger.log_hyperparams``, this writes no point into the metrics' curves.
    """
    if not isinstance(logger, TensorBoardLogger):
        # MLflow raises if a hyper-parameter is logged with another value.
        logger.log_hyperparams({name: value for name, value in row.items() if name not in pl_module.hparams})
        return
    from torch.utils.tensorboard.summary import hparams  # slow to import

    add_summaries(logger.experiment, hparams(dict(row), dict.fromkeys(metrics, 0.0)))  # type: ignore[no-untyped-call]


def find_part(pl_module: L.LightningModule, kind: type) -> Any:
    """The first submodule of a class, or None."""
    return next((module for module in pl_module.modules() if isinstance(module, kind)), None)


def find_target(pl_module: L.LightningModule) -> float | None:
    """The target of a module's log-normalizer, nats; None if it has none."""
    bound = find_part(pl_module, AbstractBound)
    return None if bound is None else log_normalizer_target(bound, find_part(pl_module, AbstractRegularizer))


def _name(module: nn.Module | None) -> str:
    """The class name of a part; for a wrapped critic, ``Wrapper(Critic)``."""
    if module is None:
        return "none"
    wrapped = getattr(module, "critic", None)
    return f"{type(module).__name__}({_name(wrapped)})" if isinstance(wrapped, nn.Module) else type(module).__name__


def _weight(regularizer: AbstractRegularizer) -> float:
    """The regularizer's weight, or the final weight of a schedule."""
    weight = regularizer.weight
    return float(getattr(weight, "weight", regularizer.current_weight())) if callable(weight) else weight
