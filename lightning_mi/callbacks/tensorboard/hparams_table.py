"""A run's row of TensorBoard's HPARAMS table: what the run is, and which results are its columns."""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import nn

from lightning_mi.bounds import AbstractBound
from lightning_mi.callbacks.probes import Probes
from lightning_mi.critics import AbstractCritic
from lightning_mi.module import MIEstimationModule
from lightning_mi.pairs import AbstractPairing
from lightning_mi.regularizers import AbstractRegularizer, log_normalizer_target

Plain = str | int | float | bool


def checked(hparams: Mapping[str, Any]) -> dict[str, Plain]:
    """JointColumns that a user gives.

    Raises:
        TypeError: A value is not plain.

    Example:
        >>> checked({"layers": [8, 8]})
        Traceback (most recent call last):
        TypeError: Got hparams with layers=[8, 8]: a column of the HPARAMS table is a string, a number or a truth value.
    """
    for name, value in hparams.items():
        if not isinstance(value, Plain):
            raise TypeError(
                f"Got hparams with {name}={value!r}: a column of the HPARAMS table is a string, a number or a truth "
                "value."
            )
    return dict(hparams)


def row(trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Plain]:
    """What a run is, flat and plain; the same columns for every run of a module, so that runs compare.

    A module's own hyper-parameters are in it, but for those of :class:`MIEstimationModule`, which are there in short.
    """
    bound, regularizer = part(pl_module, AbstractBound), part(pl_module, AbstractRegularizer)
    described: dict[str, Any] = {
        "bound": _name(bound),
        "regularizer": _name(regularizer),
        "weight": 0.0 if regularizer is None else _weight(regularizer),
        "target": None if bound is None else (0.0 if regularizer is None else regularizer.target),
        "critic": _name(part(pl_module, AbstractCritic)),
        "pairs": _name(part(pl_module, AbstractPairing)),
        "batch_size": getattr(getattr(trainer, "datamodule", None), "batch_size", None),
    }
    if trainer.optimizers:
        described["optimizer"] = type(trainer.optimizers[0]).__name__
        described["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
    if (seed := os.environ.get("PL_GLOBAL_SEED")) is not None:  # where seed_everything leaves it
        described["seed"] = int(seed)
    in_short = inspect.signature(MIEstimationModule).parameters
    own = {name: value for name, value in pl_module.hparams.items() if name not in in_short and name[0] != "_"}
    return {name: value for name, value in (described | own).items() if isinstance(value, Plain)}


def default_metrics(trainer: L.Trainer, pl_module: L.LightningModule) -> list[str]:
    """The results that a run can have: a column for each."""
    stages = ["val", "test"] if trainer.enable_validation else ["test"]
    metrics = ["train/mi", "train/log_normalizer", *(f"{stage}/mi" for stage in stages)]
    if hasattr(part(pl_module, AbstractPairing), "predict"):
        metrics += [f"{stage}/accuracy" for stage in stages]
    if any(isinstance(callback, Probes) for callback in trainer.callbacks):  # type: ignore[attr-defined]  # set by its callback connector
        metrics += ["probe/nearest_neighbor", "probe/accuracy"]
    if getattr(pl_module, "probe", None) is not None:
        metrics.append("probe/online_accuracy")
    return metrics


def declare(logger: Logger, row: Mapping[str, Plain], metrics: Sequence[str], pl_module: L.LightningModule) -> None:
    """Enter a run into a logger's table of hyper-parameters; a logger that is not TensorBoard's gets what is new to it.

    Nothing is written into the metrics' own curves, as ``TensorBoardLogger.log_hyperparams`` would do.
    """
    if not isinstance(logger, TensorBoardLogger):
        # What Lightning logs of the module itself must not be contradicted: MLflow refuses that.
        logger.log_hyperparams({name: value for name, value in row.items() if name not in pl_module.hparams})
        return
    from torch.utils.tensorboard.summary import hparams

    writer = logger.experiment._get_file_writer()
    for summary in hparams(dict(row), dict.fromkeys(metrics, 0.0)):  # type: ignore[no-untyped-call]  # torch leaves it without
        writer.add_summary(summary)


def part(pl_module: L.LightningModule, kind: type) -> Any:
    """A module's first part of a kind, whatever its name; None if there is none."""
    return next((module for module in pl_module.modules() if isinstance(module, kind)), None)


def target_of(pl_module: L.LightningModule) -> float | None:
    """Where a module's log-normalizer is held, in nats; None if it may be anywhere."""
    bound = part(pl_module, AbstractBound)
    return None if bound is None else log_normalizer_target(bound, part(pl_module, AbstractRegularizer))


def _name(module: nn.Module | None) -> str:
    """The class of a part, and of the critic that it wraps."""
    if module is None:
        return "none"
    wrapped = getattr(module, "critic", None)
    return f"{type(module).__name__}({_name(wrapped)})" if isinstance(wrapped, nn.Module) else type(module).__name__


def _weight(regularizer: AbstractRegularizer) -> float:
    """Lambda; where a schedule raises it, what it is raised to."""
    weight = regularizer.weight
    return float(getattr(weight, "weight", regularizer.current_weight())) if callable(weight) else weight
