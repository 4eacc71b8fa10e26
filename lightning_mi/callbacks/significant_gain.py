"""Rule for a significantly better held-out estimate."""

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
    r"""Comparison rule: a value replaces the best one if it is higher by more than z standard errors of the difference.

    .. math:: v_{new} - v_{best} > z \sqrt{s_{new}^2 + s_{best}^2}

    The rule treats the two values as independent. On the same held-out samples their common noise cancels in the
    difference, so the rule is stricter than its z. A value never replaces the best one if it or its standard error is
    not finite, or if it is above the ceiling by more than z standard errors.

    Source: Breiman et al. 1984, section 3.4.3 (one-standard-error rule).

    Args:
        monitor: The name of the logged value; its standard error is ``<monitor>_standard_error``.
        z: Number of standard errors, at least 0.
        ceiling: Upper limit of the value; nats. None for no limit.

    Attributes:
        best_error: The standard error of the best value.

    Raises:
        ValueError: ``z`` is negative or not finite, or the ceiling is not a number.

    Example:
        >>> gain = SignificantGain("val/mi", z=2.0)
        >>> gain.best_error = 0.3
        >>> gain.margin(value=1.9, error=0.4)
        1.0
    """

    def __init__(self, monitor: str, z: float, ceiling: float | None = None) -> None:
        check_instance("monitor", monitor, str, '"val/mi"')
        check_number("z", z, "the standard errors that count as better")
        if ceiling is not None:
            check_number("ceiling", ceiling, "the upper limit of the value, in nats")
        if not (z >= 0 and math.isfinite(z)):
            raise ValueError(f"Got z={z}: give a number of standard errors, at least 0. 0 chooses the highest value.")
        if ceiling is not None and math.isnan(ceiling):
            raise ValueError("Got ceiling=nan: give the upper limit of the value, in nats, or leave it out.")
        self.monitor, self.z, self.ceiling = monitor, z, ceiling
        self.best_error = 0.0

    def read(self, trainer: L.Trainer) -> tuple[float, float]:
        """The value of the last validation and its standard error.

        Raises:
            MisconfigurationException: One of the two was not logged.
        """
        self._check_loader(trainer)
        logged = trainer.callback_metrics
        names = self.monitor, standard_error_name(self.monitor)
        if missing := [name for name in names if name not in logged]:
            raise MisconfigurationException(
                f"Got no {', '.join(missing)} from validation: a choice by {self.monitor!r} needs the value and its "
                "standard error. An MIEstimationModule logs both for val/mi and val/mi_macro, and for val/mi_plug_in "
                f"if a regularizer or the bound holds the log-normalizer. Logged: {sorted(logged)}."
            )
        return float(logged[names[0]]), float(logged[names[1]])

    def margin(self, value: float, error: float) -> float:
        """The minimum gain at which a value replaces the best one, nats; infinite if it is not finite or too high."""
        if not (math.isfinite(value) and math.isfinite(error)):
            return math.inf
        if self.ceiling is not None and value - self.z * error > self.ceiling:
            return math.inf
        return self.z * math.hypot(error, self.best_error)

    def check_module(self, pl_module: L.LightningModule) -> None:
        """Check that the highest value of the estimate is its best.

        Raises:
            MisconfigurationException: The bound is not a lower bound.
        """
        bound = getattr(pl_module, "bound", None)
        if not isinstance(bound, AbstractBound) or estimate_name(self.monitor).rpartition("/")[2] not in _ESTIMATES:
            return
        if not bound.is_lower_bound:
            raise MisconfigurationException(
                f"Got monitor={self.monitor!r} with {type(bound).__name__}: it is not a lower bound of the mutual "
                "information, so its highest value is not its best. Save the last checkpoint (lightning's "
                "ModelCheckpoint()) or, if the pairing predicts labels, choose by accuracy: "
                "ModelCheckpoint(monitor='val/accuracy', mode='max')."
            )

    def _check_loader(self, trainer: L.Trainer) -> None:
        loaders = len(trainer.num_val_batches) if trainer.enable_validation else 0
        if loaders > 1 and estimate_name(self.monitor) == self.monitor:
            raise MisconfigurationException(
                f"Got monitor={self.monitor!r} with {loaders} validation data loaders: each logs its own value. Choose "
                f"one, such as monitor='{loader_name(self.monitor, 0, loaders)}'."
            )

    def check_validation(self, trainer: L.Trainer) -> None:
        """Check the number of validation batches: a standard error needs two.

        Raises:
            MisconfigurationException: There are fewer than two validation batches, or several data loaders and the
                monitor names none of them.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its debugging connector
            return
        if trainer.enable_validation and not trainer.num_val_batches:
            return  # not loaded yet: called again at the first validation
        self._check_loader(trainer)
        batches = sum(trainer.num_val_batches) if trainer.enable_validation else 0
        if batches * trainer.world_size < 2:
            raise MisconfigurationException(
                f"Got {batches:g} validation batches: the standard error of {self.monitor!r} is computed over batches, "
                "and needs two at least, ten or more for precision. Hold out more samples "
                "(ImageDataModule(val_fraction=...), GaussianDataModule(val_batches=...)), raise "
                "Trainer(limit_val_batches=...), or make the batches smaller."
            )
