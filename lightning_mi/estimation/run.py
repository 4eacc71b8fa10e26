"""Run an estimation: coordinates, folds, critics, and what their held-out scores say."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lightning_mi.estimation.arrays import check_lengths
from lightning_mi.estimation.coordinates import Coordinates, OneHotCoordinates, RankCoordinates
from lightning_mi.estimation.cross_checks import conditional_cross_checks, cross_checks
from lightning_mi.estimation.cross_fit import CrossFit, CrossFitter
from lightning_mi.estimation.fits import Fits, fit_all, fit_best
from lightning_mi.estimation.folds import Indices, make_folds
from lightning_mi.estimation.inputs import MIN_SAMPLES, Variable
from lightning_mi.estimation.interruption import catch_interrupts
from lightning_mi.estimation.joint_coordinates import Columns, join
from lightning_mi.estimation.options import Options
from lightning_mi.estimation.progress import progress_bar
from lightning_mi.estimation.result import MIEstimate
from lightning_mi.estimation.summary import Setting, summarize
from lightning_mi.exceptions import EstimateInputError
from lightning_mi.utilities.checks import check_whole
from lightning_mi.utilities.distributed import single_process


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


def run(x: Variable, y: Variable, options: Options, groups: Indices | None, z: Variable | None = None) -> MIEstimate:
    """The result of :func:`run_and_keep`, without the critics."""
    return run_and_keep(x, y, options, groups, z).result


def run_and_keep(x: Variable, y: Variable, options: Options, groups: Indices | None, z: Variable | None = None) -> Run:
    """Estimate the MI of two variables, or their conditional MI given a third, and return the critics too.

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
    with single_process():  # in a process of several, the samples are still those of this one
        return _run(x, y, options, groups, z)


def _run(x: Variable, y: Variable, options: Options, groups: Indices | None, z: Variable | None) -> Run:
    variables = (x, y) if z is None else (x, y, z)
    check_lengths({variable.name: len(variable.values) for variable in variables})
    n = len(x.values)
    rng = np.random.default_rng(options.seed)
    folds = make_folds(n, options.folds, rng, groups)
    if (smallest := min(map(len, folds))) < MIN_SAMPLES // 5:
        raise EstimateInputError(
            f"Got a fold of {smallest} samples: at least {MIN_SAMPLES // 5} are required. Use fewer folds, or smaller "
            "groups."
        )
    if groups is not None and (fewest := min(_num_groups_outside(groups, folds))) < 2:
        raise EstimateInputError(
            f"Got {len(np.unique(groups))} groups or blocks for {options.folds} folds: outside of a fold there are "
            f"{fewest}, and critics need one to train on and one to validate. Use smaller ones, or fewer folds."
        )
    coordinates = (_coordinates(x), _coordinates(y))
    x_columns, y_columns = (_columns(c, variable) for c, variable in zip(coordinates, (x, y), strict=True))
    if z is None:
        checks, pairs = cross_checks(x, y), [(x_columns, y_columns)]
    else:  # I(x; z) first: if Ctrl-C ends the fits for I(x; y, z), the difference is too low, not too high
        z_columns = _columns(_coordinates(z), z)
        checks = conditional_cross_checks(x, y, z)
        pairs = [(x_columns, z_columns), (x_columns, _join(y, z, y_columns, z_columns))]
    fits = _fit(pairs, options, folds, groups, {} if z is not None else checks)
    result = summarize(Setting(variables, options, folds, groups is not None, checks), fits, rng)
    return Run(result, fits.fits[-1][-1], coordinates)


def read_groups(groups: ArrayLike | None, blocks: int | None, n: int) -> Indices | None:
    """(n,) group of each sample, from groups or from the length of blocks; None without either.

    Raises:
        EstimateInputError: There is not one group for each sample, or both are given.
        TypeError: The length of blocks is no whole number.
        ValueError: It is below 1.
    """
    if groups is None:
        if blocks is None:
            return None
        check_whole("blocks", blocks, 1)
        return np.arange(n) // blocks
    if blocks is not None:
        raise EstimateInputError(
            f"Got groups and blocks={blocks}: pass the group of each sample, or the length of blocks."
        )
    array = np.asarray(groups)
    if array.shape != (n,):
        raise EstimateInputError(f"Got groups of shape {array.shape} for {n} samples: pass one group for each sample.")
    try:
        return np.unique(array, return_inverse=True)[1].astype(np.int64)
    except TypeError as error:
        raise EstimateInputError(f"Got groups that cannot be sorted: {error}. Pass numbers or text.") from None


def _num_groups_outside(groups: Indices, folds: Sequence[Indices]) -> list[int]:
    return [len(np.setdiff1d(groups, groups[fold])) for fold in folds]


def _coordinates(variable: Variable) -> Coordinates:
    if variable.kind == "discrete":
        return OneHotCoordinates(variable.num_classes)
    return RankCoordinates(variable.values, atoms=variable.kind == "mixed")


def _columns(coordinates: Coordinates, variable: Variable) -> Columns:
    return Columns(coordinates(variable.values), coordinates.num_ranks, variable.kind == "discrete")


def _join(y: Variable, z: Variable, y_columns: Columns, z_columns: Columns) -> Columns:
    """Coordinates of (y, z); of two labels, those of the pair as one label."""
    if not (y_columns.one_hot and z_columns.one_hot):
        return join([y_columns, z_columns])
    distinct, labels = np.unique(np.hstack([y.values, z.values]), axis=0, return_inverse=True)
    return Columns(OneHotCoordinates(len(distinct))(labels.reshape(-1, 1).astype(np.float64)), 0, one_hot=True)


def _fit(
    pairs: Sequence[tuple[Columns, Columns]],
    options: Options,
    folds: list[Indices],
    groups: Indices | None,
    checks: dict[str, float],
) -> Fits:
    """Fit critics for each pair of variables, with the same folds, splits and seeds."""
    plan = options.plan
    total_steps = len(pairs) * len(plan.fractions) * plan.schedule.max_steps
    with catch_interrupts() as interruption, progress_bar(options.progress, total_steps) as callbacks:
        fitters = [
            CrossFitter(
                first,
                second,
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
        if options.critic is not None:
            return fit_all(fitters, plan.fractions, interruption)
        return fit_best(fitters, plan.fractions, interruption, checks)
