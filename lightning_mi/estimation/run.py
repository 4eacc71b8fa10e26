"""Run an estimation: coordinates, folds, critics, and what their held-out scores say."""

import copy
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lightning_mi.estimation.coordinates import Coordinates, OneHotCoordinates, RankCoordinates
from lightning_mi.estimation.cross_checks import conditional_cross_checks, cross_checks
from lightning_mi.estimation.cross_fit import CrossFit, CrossFitter
from lightning_mi.estimation.findings import Evidence, find, find_conditional, interrupted, not_extrapolated
from lightning_mi.estimation.fits import Fits, fit_all
from lightning_mi.estimation.folds import Indices, make_folds
from lightning_mi.estimation.held_out import HeldOutBlock, permutation_p_value, plug_in
from lightning_mi.estimation.inputs import MIN_SAMPLES, Variable
from lightning_mi.estimation.interruption import catch_interrupts
from lightning_mi.estimation.joint_coordinates import Columns, join
from lightning_mi.estimation.options import Options
from lightning_mi.estimation.progress import progress_bar
from lightning_mi.estimation.readout import Readout, read_out, subtract
from lightning_mi.estimation.result import Finding, MIEstimate
from lightning_mi.exceptions import EstimateInputError

_MAX_SCORES = 20_000  # of joint and of marginal pairs, for the figure


def run(x: Variable, y: Variable, options: Options, groups: Indices | None, z: Variable | None = None) -> MIEstimate:
    """Estimate the MI of two variables, or their conditional MI given a third.

    Args:
        x: The first variable.
        y: The second variable.
        options: The options.
        groups: (n,) samples of one group stay in one fold; None for single samples.
        z: The condition; None for none.

    Raises:
        EstimateInputError: The variables differ in length, or a fold is too small.
        KeyboardInterrupt: At a second Ctrl-C.
    """
    n = len(x.values)
    for other in (y, *([] if z is None else [z])):
        if len(other.values) != n:
            raise EstimateInputError(
                f"Got {n} samples of {x.name} and {len(other.values)} of {other.name}: row i of both is one sample, so "
                "both have the same length."
            )
    rng = np.random.default_rng(options.seed)
    folds = make_folds(n, options.folds, rng, groups)
    if (smallest := min(map(len, folds))) < MIN_SAMPLES // 5:
        raise EstimateInputError(
            f"Got a fold of {smallest} samples: at least {MIN_SAMPLES // 5} are required. Use fewer folds, or smaller "
            "groups."
        )
    x_columns, y_columns = _columns(x), _columns(y)
    if z is None:
        pairs = [(x_columns, y_columns)]
    else:  # I(x; z) first: if Ctrl-C ends the fits for I(x; y, z), the difference is too low, not too high
        z_columns = _columns(z)
        pairs = [(x_columns, z_columns), (x_columns, join([y_columns, z_columns]))]
    fits = _fit(pairs, options, folds, groups)
    return _result(x, y, z, options, fits, folds, groups is not None, rng)


def read_groups(groups: ArrayLike | None, blocks: int | None, n: int) -> Indices | None:
    """(n,) group of each sample, from groups or from the length of blocks; None without either.

    Raises:
        EstimateInputError: There is not one group for each sample, or both are given.
        ValueError: The blocks are empty.
    """
    if groups is None:
        return None if blocks is None else np.arange(n) // blocks
    array = np.asarray(groups)
    if array.shape != (n,) or blocks is not None:
        raise EstimateInputError(
            f"Got groups of shape {array.shape} for {n} samples, and blocks={blocks}: pass one group for each sample, "
            "or the length of blocks, not both."
        )
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _columns(variable: Variable) -> Columns:
    coordinates: Coordinates
    if variable.kind == "discrete":
        coordinates = OneHotCoordinates(variable.num_classes)
    else:
        coordinates = RankCoordinates(variable.values, atoms=variable.kind == "mixed")
    return Columns(coordinates(variable.values), coordinates.num_ranks)


def _fit(
    pairs: Sequence[tuple[Columns, Columns]], options: Options, folds: list[Indices], groups: Indices | None
) -> Fits:
    """Fit critics for each pair of variables, with the same folds, splits and seeds."""
    plan = options.plan
    total_steps = len(pairs) * len(plan.fractions) * plan.schedule.max_steps
    with catch_interrupts() as interruption, progress_bar(options.progress, total_steps) as callbacks:
        fitters = [
            CrossFitter(
                first.values,
                second.values,
                (first.num_ranks, second.num_ranks),
                folds,
                members=options.members or plan.members,
                schedule=plan.schedule,
                bound=lambda: copy.deepcopy(options.bound),
                regularizer=lambda: copy.deepcopy(options.regularizer),
                critic=options.critic,
                groups=groups,
                seed=options.seed,
                callbacks=callbacks,
                interruption=interruption,
                accelerator=options.accelerator,
            )
            for first, second in pairs
        ]
        return fit_all(fitters, plan.fractions, interruption)


def _result(
    x: Variable,
    y: Variable,
    z: Variable | None,
    options: Options,
    fits: Fits,
    folds: Sequence[Indices],
    ordered: bool,
    rng: np.random.Generator,
) -> MIEstimate:
    variables = (x, y) if z is None else (x, y, z)
    last = fits.fits[-1]  # of I(x; y), or of I(x; y, z)
    blocks = last[-1].blocks

    def evidence(readout: Readout, fits: Sequence[CrossFit], checks: dict[str, float]) -> Evidence:
        best_steps, schedule = fits[-1].fitted.best_steps, options.plan.schedule
        curve = readout.learning_curve
        return Evidence(variables, readout.mi, readout.reading, best_steps, schedule, curve, checks, folds, ordered)

    findings: tuple[Finding, ...]
    if z is None:
        readout, checks = read_out(last), cross_checks(x, y)
        findings = find(evidence(readout, last, checks))
    else:
        of_z = fits.fits[0]
        joint, condition, checks = read_out(last), read_out(of_z), conditional_cross_checks(x, y, z)
        readout = subtract(joint, condition)
        findings = find_conditional(
            evidence(readout, last, checks), evidence(joint, last, {}), evidence(condition, of_z, {})
        )
        if condition.ceiling is None:
            findings = (*findings, not_extrapolated())
    if not fits.complete:
        findings = (interrupted([fit[-1].complete for fit in fits.fits]), *findings)
    if options.holds_log_normalizer:  # not a finding if it is higher: it is no bound, and varies more
        checks = checks | {"plug_in": plug_in(blocks) - (0.0 if z is None else plug_in(fits.fits[0][-1].blocks))}
    margin = NormalDist().inv_cdf(0.5 + options.confidence / 2) * readout.reading.standard_error
    unit = 1.0 if options.units == "nats" else 1 / math.log(2)
    curve = readout.learning_curve
    return MIEstimate(
        mi=unit * readout.mi,
        lower=unit * (readout.floor - margin),
        upper=None if readout.ceiling is None else unit * (readout.ceiling + margin),
        standard_error=unit * readout.reading.standard_error,
        p_value=_p_value(blocks, options, rng, z),
        confidence=options.confidence,
        units=options.units,
        num_samples=len(x.values),
        kinds=tuple(variable.kind for variable in variables),
        pointwise=unit * readout.reading.pointwise,
        learning_curve=tuple(p._replace(mi=unit * p.mi, standard_error=unit * p.standard_error) for p in curve),
        cross_checks={name: unit * value for name, value in checks.items()},
        findings=findings,
        scores=_sample_scores(blocks),
        complete=fits.complete,
    )


def _p_value(blocks: Sequence[HeldOutBlock], options: Options, rng: np.random.Generator, z: Variable | None) -> float:
    """Of independence, or of conditional independence given labels; NaN given numbers, where no test is exact."""
    if z is None or z.kind == "discrete":
        return permutation_p_value(blocks, options.permutations, rng, None if z is None else z.labels)
    return math.nan


def _sample_scores(blocks: Sequence[HeldOutBlock]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Evenly subsampled scores of joint and of marginal pairs."""
    joint = torch.cat([block.scores.diagonal() for block in blocks])
    marginal = torch.cat([block.scores.roll(1, 1).diagonal() for block in blocks])
    step = max(1, len(joint) // _MAX_SCORES)
    return joint[::step].double().numpy(), marginal[::step].double().numpy()
