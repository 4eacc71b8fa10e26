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


class FullFits(NamedTuple):
    """The fits to the largest fraction of the samples.

    Attributes:
        fits: By fitter.
        families: Of the critics, by fitter.
        complete: False if Ctrl-C ended them, or others that were to compete with them.
    """

    fits: list[CrossFit]
    families: list[Family]
    complete: bool


def fit_all(
    fitters: Sequence[CrossFitter], fractions: Sequence[float], interruption: Interruption, family: Family = SEPARABLE
) -> Fits:
    """Fit all fractions with each fitter, the largest first: Ctrl-C then costs the smaller ones only.

    Args:
        fitters: One for each MI.
        fractions: Of the samples.
        interruption: Whether Ctrl-C was pressed; the fitters end their fits by it.
        family: Of the critics.
    """
    return _fit_fewer(fitters, fit_largest(fitters, fractions, interruption, family), fractions, interruption)


def fit_best(
    fitters: Sequence[CrossFitter],
    fractions: Sequence[float],
    interruption: Interruption,
    checks: Mapping[str, float],
) -> Fits:
    """Fit the families of critics that the samples call for, and keep for each fitter the best on validation samples.

    Separable critics come first. If their Gaussian describes products with the radius, those without follow; if there
    are many columns, those whose residual sees canonical variables alone; if a cross-check reads more than the best,
    joint critics. They compete on the largest fraction; the others are fitted with the best family alone.

    Args:
        fitters: One for each MI.
        fractions: Of the samples.
        interruption: Whether Ctrl-C was pressed.
        checks: Other estimates of the last fitter's MI by name, nats.
    """
    best = fit_largest(fitters, fractions, interruption, SEPARABLE)
    if best.complete and any(fit.has_products for fit in best.fits):
        best = better(best, fit_largest(fitters, fractions, interruption, SEPARABLE_RANKS))
    if best.complete and any(fit.is_wide for fit in best.fits):
        best = better(best, fit_largest(fitters, fractions, interruption, SEPARABLE_CANONICAL))
    reading = best.fits[-1].reading
    if best.complete and reads_higher(checks, reading.value, reading.standard_error, len(reading.influence)):
        best = better(best, fit_largest(fitters, fractions, interruption, JOINT))
    return _fit_fewer(fitters, best, fractions, interruption)


def fit_largest(
    fitters: Sequence[CrossFitter], fractions: Sequence[float], interruption: Interruption, family: Family
) -> FullFits:
    """Fit the largest fraction with each fitter.

    If Ctrl-C ends a fit, a fitter that follows has not trained. Then all fitters fit again, each to its start before
    training: a difference of trained critics and of such that are not would mean nothing. Only the last may be less
    trained than the others: put the fitter of what is subtracted first.

    Args:
        fitters: One for each MI.
        fractions: Of the samples.
        interruption: Whether Ctrl-C was pressed; the fitters end their fits by it.
        family: Of the critics.
    """
    largest = max(fractions)
    fits: list[CrossFit] = []
    for fitter in fitters:
        fits.append(fitter(largest, family))
        if interruption.requested:
            break
    if len(fits) < len(fitters):
        fits = [fitter(largest, family) for fitter in fitters]
    return FullFits(fits, [family] * len(fits), all(fit.complete for fit in fits))


def better(first: FullFits, second: FullFits) -> FullFits:
    """For each fitter the fit with the higher value on validation samples; the first if the second are incomplete."""
    if not second.complete:
        return first._replace(complete=False)
    rows = [zip(fits.fits, fits.families, strict=True) for fits in (first, second)]
    chosen = [max(pair, key=lambda fit: float(np.mean(fit[0].fitted.values))) for pair in zip(*rows, strict=True)]
    return FullFits([fit for fit, _ in chosen], [family for _, family in chosen], True)


def _fit_fewer(
    fitters: Sequence[CrossFitter], largest: FullFits, fractions: Sequence[float], interruption: Interruption
) -> Fits:
    """Fit the other fractions, in decreasing order, with the families of the largest."""
    rows = [largest.fits]
    for fraction in sorted(fractions, reverse=True)[1:]:
        if interruption.requested:
            break
        row = [fitter(fraction, family) for fitter, family in zip(fitters, largest.families, strict=True)]
        if all(fit.complete for fit in row):
            rows.append(row)
    complete = largest.complete and len(rows) == len(fractions)
    return Fits([list(fits) for fits in zip(*reversed(rows), strict=True)], complete)
