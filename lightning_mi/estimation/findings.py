"""Findings: what in the data or in the fit limits the meaning of an estimate."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_mi.estimation.cross_checks import reads_higher
from lightning_mi.estimation.folds import Indices
from lightning_mi.estimation.held_out import Reading
from lightning_mi.estimation.inputs import Variable
from lightning_mi.estimation.result import Finding, LearningCurvePoint
from lightning_mi.estimation.schedule import Schedule

_HEAVY_TAIL = 20.0  # excess kurtosis: the sample mean of exp of such values is carried by few samples
_AUTOCORRELATION = 0.2  # of a column with itself one sample later
_FEW_SAMPLES = 500
_STEEP = 0.2  # of the estimate
_DIFFERENCE_REMEDY = "One of the two is wrong, and a difference of two copulas may be too high; pass another critic=."
_NEGATIVE = 0.01  # nats: less below 0 is the error of critics


class Evidence(NamedTuple):
    """What the findings are derived from; values in nats.

    Attributes:
        variables: x and y, and z if there is a condition.
        mi: The estimate.
        reading: The held-out scores of the critics that were fitted to all samples.
        best_steps: The step at which each critic was best.
        schedule: How long critics train at most.
        learning_curve: The estimate against the number of samples for the fit, largest last.
        cross_checks: Other estimates by name.
        folds: Samples of each fold.
        ordered: Whether folds respect groups or blocks.
    """

    variables: tuple[Variable, ...]
    mi: float
    reading: Reading
    best_steps: Sequence[int]
    schedule: Schedule
    learning_curve: Sequence[LearningCurvePoint]
    cross_checks: dict[str, float]
    folds: Sequence[Indices]
    ordered: bool

    @property
    def fold_size(self) -> int:
        """The samples of the smallest fold."""
        return min(map(len, self.folds))


def find(evidence: Evidence) -> tuple[Finding, ...]:
    """The findings of the data, then the findings of the fit."""
    return (*_of_the_data(evidence), *_of_the_fit(evidence), *_of_the_cross_checks(evidence))


def find_conditional(difference: Evidence, joint: Evidence, condition: Evidence) -> tuple[Finding, ...]:
    """The findings of the data, of the fits for I(x; y, z) and for I(x; z), and of their difference.

    Args:
        difference: Of I(x; y | z).
        joint: Of I(x; y, z).
        condition: Of I(x; z).
    """
    fits = {"I(x; y, z)": joint, "I(x; z)": condition}
    of_the_fits = [
        finding._replace(text=f"{name}: {finding.text}") for name, e in fits.items() for finding in _of_the_fit(e)
    ]
    higher = [finding._replace(remedy=_DIFFERENCE_REMEDY) for finding in _of_the_cross_checks(difference)]
    of_the_difference = [*_of_the_sign(difference), *higher]
    return (*_of_the_data(difference), *of_the_fits, *of_the_difference)


def interrupted(complete: Sequence[bool]) -> Finding:
    """The finding of an estimation that Ctrl-C ended.

    Args:
        complete: For each MI that was fitted, whether the fit to all samples was complete.
    """
    if all(complete):
        text, remedy = "Ctrl-C skipped fits to fewer samples.", "The learning curve is incomplete; run it again."
    elif len(complete) == 1:
        text = "Ctrl-C ended the fit; each critic is that of its best step before."
        remedy = "The lower limit holds, the estimate may be far too low; run it again."
    elif complete[0]:
        text = "Ctrl-C ended the fit for I(x; y, z); each critic is that of its best step before."
        remedy = "The estimate may be far too low; run it again."
    else:
        text = "Ctrl-C ended the fits; all critics are those before training."
        remedy = "The estimate leaves out what is not Gaussian, and its limits do not hold; run it again."
    return Finding("interrupted", text, remedy)


def not_extrapolated() -> Finding:
    """The finding of a conditional estimate whose I(x; z) is a value at one number of samples."""
    return Finding(
        "not_extrapolated",
        "I(x; z) was not extrapolated, so that it is too low by the error of its critics.",
        'The lower limit is too high by that error. Use budget="standard".',
    )


def _of_the_data(e: Evidence) -> Iterator[Finding]:
    n = len(e.variables[0].values)
    if n < _FEW_SAMPLES:
        yield Finding("n_too_small", f"{n} samples.", "Collect more: the estimate may be far too low.")
    for variable in e.variables:
        name = variable.name
        if variable.constant:
            yield Finding(
                "constant_columns",
                f"Columns {list(variable.constant)} of {name} have a single value.",
                "They carry no information; drop them.",
                "note",
            )
        if variable.kind == "mixed":
            yield Finding(
                "ties_or_discrete",
                f"Some values of {name} occur many times.",
                f"If they are rounded numbers, use the unrounded ones; for labels pass discrete={{'{name}': True}}.",
                "note",
            )
        if variable.kind != "discrete":
            if (kurtosis := _largest_kurtosis(variable.values)) > _HEAVY_TAIL:
                yield Finding(
                    "heavy_tails",
                    f"The largest kurtosis of a column of {name} is {kurtosis:.0f}.",
                    "Ranks were used, which remove it column by column; tails that several columns share remain hard.",
                    "note",
                )
            correlation = _lag_one_correlation(variable.values)
            if not e.ordered and correlation > max(_AUTOCORRELATION, 4 / math.sqrt(n)):
                yield Finding(
                    "autocorrelated",
                    f"Consecutive samples of {name} have a correlation of {correlation:.2f}.",
                    "For a time series pass blocks=length, a length over which the correlation vanishes.",
                )
            if variable.values.shape[1] > n / 10:
                yield Finding(
                    "many_columns",
                    f"{name} has {variable.values.shape[1]} columns for {n} samples.",
                    "Reduce them, such as by principal components, before estimating.",
                )
    if e.ordered:
        yield Finding(
            "dependent_samples",
            "Samples of a group or block may depend on each other; p-value and limits take them as independent.",
            "Do not read a small p-value as a test; compare with pairs whose y is from another time or group.",
        )
    if duplicates := _duplicates(e):
        yield Finding(
            "duplicates_across_folds",
            f"{duplicates} samples are copies of a sample in another fold.",
            "Drop them, or pass groups= so that copies are in one fold.",
        )


def _of_the_fit(e: Evidence) -> Iterator[Finding]:
    if e.reading.fold_error > 3 * e.reading.sampling_error and e.reading.fold_error > 0.02:
        yield Finding(
            "folds_disagree",
            f"The standard error is {e.reading.fold_error:.3f} nats over folds, {e.reading.sampling_error:.3f} over "
            "samples.",
            'Use budget="careful", or look for a subset of samples that differs.',
        )
    if e.reading.effective_pairs.min() < e.fold_size:
        yield Finding(
            "few_pairs_carry_the_mean",
            f"{e.reading.effective_pairs.min():.0f} marginal pairs of a fold carry its log-normalizer.",
            "Samples far outside of the others decide the value; collect more.",
        )
    if np.median(e.best_steps) > 0.9 * e.schedule.max_steps:
        yield Finding(
            "still_rising",
            f"Half of the critics were best after 90 % of the {e.schedule.max_steps} steps.",
            'Use budget="careful".',
        )
    if len(e.learning_curve) > 1:
        *_, half, full = e.learning_curve
        rise = e.mi - full.mi  # that the extrapolation adds
        if rise > max(2 * e.reading.standard_error, _STEEP * abs(e.mi)):
            yield Finding(
                "learning_curve_steep",
                f"From {half.num_train} to {full.num_train} samples the value rose by {full.mi - half.mi:.3f} nats; "
                f"the extrapolation adds {rise:.3f}.",
                "Collect more samples: the estimate rests on the extrapolation.",
            )
    ceiling = math.log(e.fold_size)
    if (highest := max(e.mi, *e.cross_checks.values(), 0.0)) > 0.75 * ceiling:
        yield Finding(
            "near_ceiling",
            f"An MI of {highest:.1f} nats is near log n = {ceiling:.1f} nats of a fold.",
            "No method certifies an MI above log n of the samples that it is read from; collect more.",
        )


def _of_the_sign(e: Evidence) -> Iterator[Finding]:
    """Of a difference that is never negative, since I(x; y, z) is at least I(x; z)."""
    if e.mi < -max(3 * e.reading.standard_error, _NEGATIVE):
        yield Finding(
            "negative_difference",
            f"I(x; z) reads {-e.mi:.3f} nats more than I(x; y, z): the critics of (y, z) learned less.",
            'The estimate is too low by at least that. Use budget="careful", or collect more samples.',
        )


def _of_the_cross_checks(e: Evidence) -> Iterator[Finding]:
    for name in reads_higher(e.cross_checks, e.mi, e.reading.standard_error, len(e.reading.influence)):
        yield Finding(
            "cross_check_higher",
            f"{name} reads {e.cross_checks[name]:.3f} nats.",
            "The critics may miss a dependence; pass another critic=, or trust the higher estimate.",
        )


def _centered(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values minus the mean of their column, with a largest value of 1, so that powers do not overflow."""
    largest = np.abs(values).max(axis=0)
    scaled = values / np.where(largest > 0, largest, 1.0)
    centered: NDArray[np.float64] = scaled - scaled.mean(axis=0)
    return centered


def _largest_kurtosis(values: NDArray[np.float64]) -> float:
    centered = _centered(values)
    variance = (centered**2).mean(axis=0)
    fourth = (centered**4).mean(axis=0)
    kurtosis = np.divide(fourth, variance**2, out=np.zeros_like(fourth), where=variance > 0)
    return float(kurtosis.max()) - 3


def _lag_one_correlation(values: NDArray[np.float64]) -> float:
    centered = _centered(values)
    variance = (centered**2).mean(axis=0)
    products = (centered[1:] * centered[:-1]).mean(axis=0)
    return float(np.divide(products, variance, out=np.zeros_like(products), where=variance > 0).max())


def _duplicates(e: Evidence) -> int:
    """Samples that equal, in all variables, a sample of another fold; 0 if all variables are discrete."""
    if all(variable.kind == "discrete" for variable in e.variables):
        return 0
    rows = np.hstack([variable.values for variable in e.variables])
    _, inverse = np.unique(rows, axis=0, return_inverse=True)
    folds = np.empty(len(rows), dtype=np.int64)
    for index, samples in enumerate(e.folds):
        folds[samples] = index
    first = np.full(inverse.max() + 1, -1)
    first[inverse[::-1]] = folds[::-1]
    return int((folds != first[inverse]).sum())
