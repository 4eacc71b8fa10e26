"""Run an estimation: coordinates, folds, critics, and what their held-out scores say."""

import copy
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lightning_mi.estimation.coordinates import Coordinates, OneHotCoordinates, RankCoordinates
from lightning_mi.estimation.cross_checks import cross_checks, reads_higher
from lightning_mi.estimation.cross_fit import CrossFit, CrossFitter
from lightning_mi.estimation.families import JOINT
from lightning_mi.estimation.findings import Evidence, find
from lightning_mi.estimation.folds import Indices, make_folds
from lightning_mi.estimation.held_out import HeldOutBlock, permutation_p_value
from lightning_mi.estimation.inputs import MIN_SAMPLES, Variable
from lightning_mi.estimation.options import Options
from lightning_mi.estimation.result import LearningCurvePoint, MIEstimate
from lightning_mi.exceptions import EstimateInputError

_MAX_SCORES = 20_000  # of joint and of marginal pairs, for the figure


class Run(NamedTuple):
    """An estimate and what made it.

    Attributes:
        result: The estimate.
        fit: The critics that were fitted to all samples, and their held-out scores.
        coordinates: Of x and of y.
    """

    result: MIEstimate
    fit: CrossFit
    coordinates: tuple[Coordinates, Coordinates]


def run(x: Variable, y: Variable, options: Options, groups: Indices | None) -> MIEstimate:
    """The result of :func:`run_and_keep`, without the critics."""
    return run_and_keep(x, y, options, groups).result


def run_and_keep(x: Variable, y: Variable, options: Options, groups: Indices | None) -> Run:
    """Estimate the MI of two variables, and return the critics too.

    Args:
        x: The first variable.
        y: The second variable.
        options: The options.
        groups: (n,) samples of one group stay in one fold; None for single samples.

    Raises:
        EstimateInputError: The variables differ in length, or a fold is too small.
    """
    n = len(x.values)
    if len(y.values) != n:
        raise EstimateInputError(
            f"Got {n} samples of {x.name} and {len(y.values)} of {y.name}: row i of both is one sample, so both have "
            "the same length."
        )
    rng = np.random.default_rng(options.seed)
    folds = make_folds(n, options.folds, rng, groups)
    if (smallest := min(map(len, folds))) < MIN_SAMPLES // 5:
        raise EstimateInputError(
            f"Got a fold of {smallest} samples: at least {MIN_SAMPLES // 5} are required. Use fewer folds, or smaller "
            "groups."
        )
    coordinates = (_coordinates(x), _coordinates(y))
    checks = cross_checks(x, y)
    fitter = CrossFitter(
        coordinates[0](x.values),
        coordinates[1](y.values),
        (coordinates[0].num_ranks, coordinates[1].num_ranks),
        folds,
        members=options.members or options.plan.members,
        schedule=options.plan.schedule,
        bound=lambda: copy.deepcopy(options.bound),
        regularizer=lambda: copy.deepcopy(options.regularizer),
        critic=options.critic,
        groups=groups,
        seed=options.seed,
        accelerator=options.accelerator,
    )
    fits = [fitter(fraction) for fraction in options.plan.fractions]
    if options.critic is None and reads_higher(checks, fits[-1].reading.value, fits[-1].reading.standard_error):
        joint = [fitter(fraction, JOINT) for fraction in options.plan.fractions]
        fits = max(fits, joint, key=lambda family: np.mean(family[-1].fitted.values))
    return Run(_result(x, y, options, fits, checks, folds, groups is not None, rng), fits[-1], coordinates)


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
    return full.mi + rise / (math.sqrt(full.num_train / half.num_train) - 1)


def _coordinates(variable: Variable) -> Coordinates:
    if variable.kind == "discrete":
        return OneHotCoordinates(variable.num_classes)
    return RankCoordinates(variable.values, atoms=variable.kind == "mixed")


def _result(
    x: Variable,
    y: Variable,
    options: Options,
    fits: Sequence[CrossFit],
    checks: dict[str, float],
    folds: Sequence[Indices],
    ordered: bool,
    rng: np.random.Generator,
) -> MIEstimate:
    reading, fitted = fits[-1].reading, fits[-1].fitted
    curve = [LearningCurvePoint(len(f.splits[0].train), f.reading.value, f.reading.standard_error) for f in fits]
    limit = extrapolate(curve)
    mi = reading.value if limit is None else limit
    margin = NormalDist().inv_cdf(0.5 + options.confidence / 2) * reading.standard_error
    evidence = Evidence((x, y), mi, reading, fitted.best_steps, options.plan.schedule, curve, checks, folds, ordered)
    unit = 1.0 if options.units == "nats" else 1 / math.log(2)
    return MIEstimate(
        mi=unit * mi,
        lower=unit * (reading.value - margin),
        upper=None if limit is None else unit * (max(limit, reading.value) + margin),
        standard_error=unit * reading.standard_error,
        p_value=permutation_p_value(fits[-1].blocks, options.permutations, rng),
        confidence=options.confidence,
        units=options.units,
        num_samples=len(x.values),
        kinds=(x.kind, y.kind),
        pointwise=unit * reading.pointwise,
        learning_curve=tuple(p._replace(mi=unit * p.mi, standard_error=unit * p.standard_error) for p in curve),
        cross_checks={name: unit * value for name, value in checks.items()},
        findings=find(evidence),
        scores=_sample_scores(fits[-1].blocks),
    )


def _sample_scores(blocks: Sequence[HeldOutBlock]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Evenly subsampled scores of joint and of marginal pairs."""
    joint = torch.cat([block.scores.diagonal() for block in blocks])
    marginal = torch.cat([block.scores.roll(1, 1).diagonal() for block in blocks])
    step = max(1, len(joint) // _MAX_SCORES)
    return joint[::step].double().numpy(), marginal[::step].double().numpy()
