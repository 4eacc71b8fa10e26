"""When a held-out estimate is better than another one, and not only luckier."""

import math
from typing import final

import lightning.pytorch as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_mi.bounds import AbstractBound
from lightning_mi.training.epoch_metrics import estimate_name, loader_name, standard_error_name
from lightning_mi.utilities.checks import check_instance, check_number

_ESTIMATES = ("mi", "mi_macro", "mi_plug_in")


@final
class SignificantGain:
    r"""A reading replaces the kept one where it is higher by more than z standard errors of their difference.

    .. math:: v_{new} - v_{kept} > z \sqrt{s_{new}^2 + s_{kept}^2}

    The two count as independent. Readings on the same held-out samples are not: their common part cancels in the
    difference, which makes the rule stricter than its z says. A reading that is not finite, has no standard error, or
    lies above the ceiling by more than z standard errors is never better.

    Source: The one-standard-error rule of Breiman et al. 1984, section 3.4.3, for a sequence of readings.

    Args:
        monitor: The name that the value is logged under; its standard error has ``_standard_error`` after it.
        z: How many standard errors, at least 0.
        ceiling: What the value cannot exceed; nats. None for no limit.

    Attributes:
        kept_error: The standard error of the kept reading.

    Raises:
        ValueError: ``z`` is negative or not finite, or the ceiling is not a number.

    Example:
        >>> gain = SignificantGain("val/mi", z=2.0)
        >>> gain.kept_error = 0.3
        >>> gain.margin(value=1.9, error=0.4)
        1.0
    """

    def __init__(self, monitor: str, z: float, ceiling: float | None = None) -> None:
        check_instance("monitor", monitor, str, '"val/mi"')
        check_number("z", z, "how many standard errors count as better")
        if ceiling is not None:
            check_number("ceiling", ceiling, "what the value cannot exceed, in nats")
        if not (z >= 0 and math.isfinite(z)):
            raise ValueError(f"Got z={z}: give a number of standard errors, at least 0. At 0 the highest value wins.")
        if ceiling is not None and math.isnan(ceiling):
            raise ValueError("Got ceiling=nan: give what the value cannot exceed, in nats, or leave it out.")
        self.monitor, self.z, self.ceiling = monitor, z, ceiling
        self.kept_error = 0.0

    def read(self, trainer: L.Trainer) -> tuple[float, float]:
        """The value that the last validation logged, and its standard error.

        Raises:
            MisconfigurationException: One of the two was not logged.
        """
        self._check_loader(trainer)
        logged = trainer.callback_metrics
        names = self.monitor, standard_error_name(self.monitor)
        if missing := [name for name in names if name not in logged]:
            raise MisconfigurationException(
                f"{', '.join(missing)} was not logged in validation, and a choice by {self.monitor!r} takes the value "
                f"and its standard error. An MIEstimationModule logs both of val/mi and val/mi_macro, and of "
                f"val/mi_plug_in where a regularizer or the bound holds the log-normalizer. Logged: {sorted(logged)}."
            )
        return float(logged[names[0]]), float(logged[names[1]])

    def margin(self, value: float, error: float) -> float:
        """By how much a reading must exceed the kept value to replace it: nats, infinite where it never does."""
        if not (math.isfinite(value) and math.isfinite(error)):
            return math.inf
        if self.ceiling is not None and value - self.z * error > self.ceiling:
            return math.inf
        return self.z * math.hypot(error, self.kept_error)

    def check_module(self, pl_module: L.LightningModule) -> None:
        """Refuse an estimate whose highest value is not its best.

        Raises:
            MisconfigurationException: The bound is not a lower bound.
        """
        bound = getattr(pl_module, "bound", None)
        if not isinstance(bound, AbstractBound) or estimate_name(self.monitor).rpartition("/")[2] not in _ESTIMATES:
            return
        if not bound.is_lower_bound:
            raise MisconfigurationException(
                f"{self.monitor!r} of {type(bound).__name__} is not a lower bound of the mutual information, so the "
                "highest value is not the best one. Keep the last checkpoint (lightning's ModelCheckpoint()), or "
                "where the pairing predicts labels, choose by its accuracy: ModelCheckpoint(monitor='val/accuracy', "
                "mode='max')."
            )

    def _check_loader(self, trainer: L.Trainer) -> None:
        loaders = len(trainer.num_val_batches) if trainer.enable_validation else 0
        if loaders > 1 and estimate_name(self.monitor) == self.monitor:
            raise MisconfigurationException(
                f"Got monitor={self.monitor!r} and {loaders} validation data loaders, each of which has a value of its "
                f"own. Choose one, such as monitor='{loader_name(self.monitor, 0, loaders)}'."
            )

    def check_validation(self, trainer: L.Trainer) -> None:
        """Refuse a training that holds nothing out, or a single batch, which has no standard error.

        Raises:
            MisconfigurationException: There are fewer than two validation batches, or several data loaders of which the
                monitor names none.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its debugging connector
            return
        if trainer.enable_validation and not trainer.num_val_batches:
            return  # loaded before the first validation, where this is called again
        self._check_loader(trainer)
        batches = sum(trainer.num_val_batches) if trainer.enable_validation else 0
        if batches * trainer.world_size < 2:
            raise MisconfigurationException(
                f"Got {batches:g} validation batches: a choice by {self.monitor!r} takes its standard error over "
                "batches, so two at the least, and ten or more to know it well. Hold out more samples "
                "(ImageDataModule(val_fraction=...), GaussianDataModule(val_batches=...)), raise "
                "Trainer(limit_val_batches=...), or make the batches smaller."
            )
