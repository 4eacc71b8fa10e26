"""The result of an estimation, from its fits."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_mi.estimation.cross_fit import CrossFit
from lightning_mi.estimation.findings import Evidence, find, find_conditional, interrupted, not_extrapolated
from lightning_mi.estimation.fits import Fits
from lightning_mi.estimation.folds import Indices
from lightning_mi.estimation.held_out import HeldOutBlock, permutation_p_value, plug_in
from lightning_mi.estimation.inputs import Variable
from lightning_mi.estimation.options import Options
from lightning_mi.estimation.readout import Readout, read_out, subtract
from lightning_mi.estimation.result import Finding, MIEstimate
from lightning_mi.utilities.labels import entropy

_MAX_SCORES = 20_000  # of joint and of marginal pairs, for the figure


class Setting(NamedTuple):
    """What an estimation started from.

    Attributes:
        variables: x and y, and z if there is a condition.
        options: The options.
        folds: Samples of each fold.
        ordered: Whether folds respect groups or blocks.
        checks: Other estimates by name, nats.
    """

    variables: tuple[Variable, ...]
    options: Options
    folds: Sequence[Indices]
    ordered: bool
    checks: dict[str, float]


def summarize(setting: Setting, fits: Fits, rng: np.random.Generator) -> MIEstimate:
    """The result of the fits.

    Args:
        setting: What they started from.
        fits: Of I(x; y); or of I(x; z), then of I(x; y, z).
        rng: Draws permutations.
    """
    options, checks, last = setting.options, setting.checks, fits.fits[-1]
    readout, findings = _unconditional(setting, last) if len(fits.fits) == 1 else _conditional(setting, fits)
    if not fits.complete:
        findings = (interrupted([fit[-1].complete for fit in fits.fits]), *findings)
    if options.holds_log_normalizer:  # not a finding if it is higher: it is no bound, and varies more
        plug_ins = [plug_in(of_one[-1].blocks) for of_one in fits.fits]
        checks = checks | {"plug_in": plug_ins[-1] - sum(plug_ins[:-1])}
    quantile, error = NormalDist().inv_cdf(0.5 + options.confidence / 2), readout.reading.standard_error
    unit = options.unit
    curve = readout.learning_curve
    return MIEstimate(
        mi=unit * readout.mi,
        lower=unit * (readout.floor - quantile * error),
        upper=_upper(readout, quantile, unit),
        standard_error=unit * error,
        p_value=_p_value(last[-1].test_blocks, setting, rng),
        confidence=options.confidence,
        units=options.units,
        num_samples=len(setting.variables[0].values),
        kinds=tuple(variable.kind for variable in setting.variables),
        pointwise=unit * readout.reading.pointwise,
        learning_curve=tuple(p._replace(mi=unit * p.mi, standard_error=unit * p.standard_error) for p in curve),
        cross_checks={name: unit * value for name, value in checks.items()},
        findings=findings,
        scores=_sample_scores(last[-1].blocks),
        complete=fits.complete,
    )


def _upper(readout: Readout, quantile: float, unit: float) -> float | None:
    if readout.ceiling is None:
        return None
    error = math.hypot(readout.reading.standard_error, readout.extrapolation_error)
    return unit * (readout.ceiling + quantile * error)


def _unconditional(setting: Setting, fits: Sequence[CrossFit]) -> tuple[Readout, tuple[Finding, ...]]:
    readout = read_out(fits, min(map(_entropy, setting.variables)))
    return readout, find(_evidence(setting, readout, fits, setting.checks))


def _conditional(setting: Setting, fits: Fits) -> tuple[Readout, tuple[Finding, ...]]:
    of_z, of_both = fits.fits
    x, _, z = setting.variables
    condition, joint = read_out(of_z, min(_entropy(x), _entropy(z))), read_out(of_both, _entropy(x))
    readout = subtract(joint, condition)
    findings = find_conditional(
        _evidence(setting, readout, of_both, setting.checks),
        _evidence(setting, joint, of_both, {}),
        _evidence(setting, condition, of_z, {}),
    )
    return readout, findings if condition.ceiling is not None else (*findings, not_extrapolated())


def _entropy(variable: Variable) -> float:
    """The entropy of labels, corrected for their number, nats; infinite for numbers.

    Source: Miller 1955.
    """
    if variable.kind != "discrete":
        return math.inf
    counts = np.bincount(variable.labels)
    n, num_labels = len(variable.labels), np.count_nonzero(counts)
    return entropy(torch.from_numpy(counts / n)) + (num_labels - 1) / (2 * n)


def _evidence(setting: Setting, readout: Readout, fits: Sequence[CrossFit], checks: dict[str, float]) -> Evidence:
    return Evidence(
        setting.variables,
        readout.mi,
        readout.reading,
        fits[-1].fitted.best_steps,
        setting.options.plan.schedule,
        readout.learning_curve,
        checks,
        setting.folds,
        setting.ordered,
    )


def _p_value(blocks: Sequence[HeldOutBlock], setting: Setting, rng: np.random.Generator) -> float:
    """Of independence, or of conditional independence given labels; NaN given numbers: none is valid for all laws."""
    _, _, *condition = setting.variables
    if any(variable.kind != "discrete" for variable in condition):
        return math.nan
    strata = condition[0].labels if condition else None
    return permutation_p_value(blocks, setting.options.permutations, rng, strata)


def _sample_scores(blocks: Sequence[HeldOutBlock]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Evenly subsampled scores of joint and of marginal pairs."""
    joint = torch.cat([block.scores.diagonal() for block in blocks])
    marginal = torch.cat([block.scores.roll(1, 1).diagonal() for block in blocks])
    step = max(1, len(joint) // _MAX_SCORES)
    return joint[::step].double().numpy(), marginal[::step].double().numpy()
