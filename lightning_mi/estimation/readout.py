"""What the fits of one MI read, and the difference of two MIs on the same samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_mi.estimation.cross_fit import CrossFit
from lightning_mi.estimation.held_out import Reading
from lightning_mi.estimation.result import LearningCurvePoint


@dataclass(frozen=True)
class Readout:
    """An MI, or the difference of two, by fits to increasing numbers of samples; all values in nats.

    Attributes:
        num_train: Samples that each critic was fitted to, by fit.
        readings: By fit; the last is that of all samples.
        mi: The extrapolated value, or the value of all samples without extrapolation.
        floor: A value that is below the MI, up to its sampling error.
        ceiling: A value that is above the MI, if the extrapolation holds; None without.
    """

    num_train: tuple[int, ...]
    readings: tuple[Reading, ...]
    mi: float
    floor: float
    ceiling: float | None

    @property
    def reading(self) -> Reading:
        """The reading of the critics that were fitted to all samples."""
        return self.readings[-1]

    @property
    def extrapolation_error(self) -> float:
        """The standard error of the extrapolated rise, by its variation over folds, nats; 0 without extrapolation."""
        if self.ceiling is None:
            return 0.0
        rises = self.readings[-1].folds - self.readings[-2].folds
        return float(_steps(*self.num_train[-2:]) * rises.std(ddof=1) / math.sqrt(len(rises)))

    @property
    def learning_curve(self) -> tuple[LearningCurvePoint, ...]:
        """The values against the number of samples for the fit."""
        pairs = zip(self.num_train, self.readings, strict=True)
        return tuple(LearningCurvePoint(n, reading.value, reading.standard_error) for n, reading in pairs)


def read_out(fits: Sequence[CrossFit], entropy: float = math.inf) -> Readout:
    """The readout of one MI.

    Args:
        fits: To increasing numbers of samples.
        entropy: Of a discrete variable, nats: the extrapolation ends there, as MI is at most the entropy.
    """
    num_train, readings = tuple(len(fit.splits[0].train) for fit in fits), tuple(fit.reading for fit in fits)
    value = readings[-1].value
    readout = Readout(num_train, readings, value, value, None)
    limit = extrapolate(readout.learning_curve)
    if limit is None:
        return readout
    limit = min(limit, max(value, entropy))
    return Readout(num_train, readings, limit, value, max(limit, value))


def subtract(joint: Readout, condition: Readout) -> Readout:
    r"""The readout of the conditional MI :math:`I(X; Y | Z) = I(X; Y, Z) - I(X; Z)`, by the chain rule.

    Both critics score the same samples, so that the errors of the difference are those of the differences of each
    sample and of each fold. A lower bound of the difference is a lower bound of I(X; Y, Z) minus the estimate of
    I(X; Z): a lower bound of I(X; Z) would be on the wrong side. I(X; Y, Z) is at least I(X; Z), and so is its ceiling.

    Args:
        joint: Of I(X; Y, Z).
        condition: Of I(X; Z), from fits with the same splits.

    Source: Cover and Thomas 2006, chapter 2.
    """
    pairs = zip(joint.readings, condition.readings, strict=True)
    ceilings = [readout.ceiling for readout in (joint, condition) if readout.ceiling is not None]
    return Readout(
        joint.num_train,
        tuple(_difference(first, second) for first, second in pairs),
        joint.mi - condition.mi,
        joint.floor - condition.mi,
        max(ceilings) - condition.floor if ceilings else None,
    )


def extrapolate(curve: Sequence[LearningCurvePoint]) -> float | None:
    """The limit of the learning curve, if the error falls with the square root of the samples; nats.

    With E(m) = E - c / sqrt(m), the last two points give E. None for a curve of one point. Without a rise, or without a
    value above two standard errors, the last value.

    Example:
        >>> extrapolate([LearningCurvePoint(100, 0.9, 0.01), LearningCurvePoint(400, 0.95, 0.01)])
        1.0
    """
    if len(curve) < 2:
        return None
    half, full = curve[-2:]
    rise = full.mi - half.mi
    if full.mi < 2 * full.standard_error or rise <= 0:
        return full.mi
    return full.mi + rise * _steps(half.num_train, full.num_train)


def _steps(num_half: int, num_full: int) -> float:
    """How many times the last rise is left to the limit."""
    return 1 / (math.sqrt(num_full / num_half) - 1)


def _difference(first: Reading, second: Reading) -> Reading:
    return Reading(
        first.value - second.value,
        first.folds - second.folds,
        first.influence - second.influence,
        first.pointwise - second.pointwise,
        np.minimum(first.effective_pairs, second.effective_pairs),
    )
