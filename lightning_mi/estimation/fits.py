"""The fits of an estimation: all fractions of the samples, for one MI or for two, until Ctrl-C."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lightning_mi.estimation.cross_checks import reads_higher
from lightning_mi.estimation.cross_fit import CrossFit, CrossFitter
from lightning_mi.estimation.families import JOINT, SEPARABLE, SEPARABLE_CANONICAL, SEPARABLE_RANKS, Family
from lightning_mi.estimation.interruption import Interruption


class Fits(NamedTuple):
    """The fits of an estimation.

    Attributes:
        fits: For each fitter its fits, to increasing fractions of the samples.
        complete: False if Ctrl-C ended them.
    """

    fits: list[list[CrossFit]]
    complete: bool


def fit_all(
    fitters: Sequence[CrossFitter], fractions: Sequence[float], interruption: Interruption, family: Family = SEPARABLE
) -> Fits:
    """Fit all fractions with each fitter, the largest first: Ctrl-C then costs the smaller ones only.

    If Ctrl-C ends the fits to the largest fraction, a fitter that follows has not trained. Then all fitters fit again,
    each to its start before training: a difference of trained critics and of such that are not would mean nothing.
    Only the last may be less trained than the others: put the fitter of what is subtracted first.

    Args:
        fitters: One for each MI.
        fractions: Of the samples.
        interruption: Whether Ctrl-C was pressed; the fitters end their fits by it.
        family: Of the critics.
    """
    largest, *others = sorted(fractions, reverse=True)
    first: list[CrossFit] = []
    for fitter in fitters:
        first.append(fitter(largest, family))
        if interruption.requested:
            break
    if len(first) < len(fitters):
        first = [fitter(largest, family) for fitter in fitters]
    rows = [first]
    for fraction in others:
        if interruption.requested:
            break
        row = [fitter(fraction, family).without_scores() for fitter in fitters]
        if all(fit.complete for fit in row):
            rows.append(row)
    complete = all(fit.complete for fit in first) and len(rows) == len(fractions)
    return Fits([list(fits) for fits in zip(*reversed(rows), strict=True)], complete)


def fit_best(
    fitters: Sequence[CrossFitter],
    fractions: Sequence[float],
    interruption: Interruption,
    checks: Mapping[str, float],
) -> Fits:
    """Fit the families of critics that the samples call for, and keep for each fitter the best on validation samples.

    Separable critics come first. If their Gaussian describes products with the radius, those without follow; if
    there are many columns, those whose residual sees canonical variables alone; if a cross-check reads more than the
    best, joint critics.

    Args:
        fitters: One for each MI.
        fractions: Of the samples.
        interruption: Whether Ctrl-C was pressed.
        checks: Other estimates of the last fitter's MI by name, nats.
    """
    fits = fit_all(fitters, fractions, interruption)
    if fits.complete and any(own[-1].has_products for own in fits.fits):
        fits = better(fits, fit_all(fitters, fractions, interruption, SEPARABLE_RANKS))
    if fits.complete and any(own[-1].is_wide for own in fits.fits):
        fits = better(fits, fit_all(fitters, fractions, interruption, SEPARABLE_CANONICAL))
    reading = fits.fits[-1][-1].reading
    if fits.complete and reads_higher(checks, reading.value, reading.standard_error, len(reading.influence)):
        fits = better(fits, fit_all(fitters, fractions, interruption, JOINT))
    return fits


def better(first: Fits, second: Fits) -> Fits:
    """For each fitter the fits with the higher value on validation samples; the first if the second are incomplete."""
    if not second.complete:
        return first._replace(complete=False)
    return Fits([max(pair, key=_validation_value) for pair in zip(first.fits, second.fits, strict=True)], True)


def _validation_value(fits: list[CrossFit]) -> float:
    return float(np.mean(fits[-1].fitted.values))
