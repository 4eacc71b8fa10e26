"""pairwise: the mutual information of each pair of columns."""

import warnings
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_mi.bounds import DV, AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.estimation.arrays import check_lengths
from lightning_mi.estimation.columns import Columns, select_columns
from lightning_mi.estimation.folds import Indices
from lightning_mi.estimation.inputs import Variable, read_kinds, read_variable
from lightning_mi.estimation.multiple_tests import LEVEL, Adjustment, adjust_p_values, default_permutations
from lightning_mi.estimation.options import Budget, Options
from lightning_mi.estimation.pairwise_result import PairwiseMI
from lightning_mi.estimation.result import MIEstimate, Units
from lightning_mi.estimation.run import read_groups, run
from lightning_mi.exceptions import EstimateInputError, MIError, MIWarning
from lightning_mi.regularizers import AbstractRegularizer, Squared
from lightning_mi.utilities.checks import check_choice


def pairwise(
    frame: Any,
    *,
    columns: Columns | None = None,
    discrete: Mapping[str, bool] | None = None,
    groups: ArrayLike | None = None,
    blocks: int | None = None,
    adjust: Adjustment = "holm",
    folds: int = 4,
    members: int | None = None,
    budget: Budget = "quick",
    permutations: int | None = None,
    confidence: float = 0.95,
    critic: Callable[[int, int], AbstractCritic] | None = None,
    bound: AbstractBound = DV(),  # noqa: B008  # copied for each critic
    regularizer: AbstractRegularizer | None = Squared(weight=0.1),  # noqa: B008
    units: Units = "nats",
    seed: int = 0,
    accelerator: str = "cpu",
) -> PairwiseMI:
    """Estimate the mutual information of each pair of columns, with p-values adjusted for the number of pairs.

    Each pair is one :func:`lightning_mi.estimate`, with the same seed and so the same folds. K columns have
    K (K - 1) / 2 pairs, of a few seconds each.

    Args:
        frame: A pandas or polars data frame, a mapping of arrays (n,) or (n, D), or an (n, K) array, whose columns are
            called ``"0"`` to ``"K-1"``.
        columns: Columns to use; or a mapping of names to columns, each a column or a list of columns that together are
            one variable, as ``{"position": ["x", "y"], "speed": "v"}``. By default all columns.
        discrete: Whether columns, by name, are labels without an order, as ``{"species": True}``; detected by default.
        groups: (n,) samples of one group stay in one fold, such as all samples of a person.
        blocks: Length of blocks of consecutive samples that stay in one fold, for time series.
        adjust: ``"holm"`` bounds the probability of any false discovery, for pairs that depend on each other in any
            way; ``"fdr"`` (Benjamini-Hochberg) bounds the expected fraction of false discoveries, for positive
            dependence.
        folds: The number of folds, at least 2.
        members: Critics of each fold, whose scores are averaged; by default from the budget.
        budget: ``"quick"`` without extrapolation, ``"standard"``, or ``"careful"`` with more critics and steps.
        permutations: Of each test of independence, at least 19. By default 999, and more from 26 pairs on: 40 for each
            pair, so that the smallest adjusted p-value is at most 0.025.
        confidence: Probability of the limits, of each pair alone.
        critic: Creates a critic from the numbers of columns of x and y in critic coordinates.
        bound: Trains the critics.
        regularizer: Holds the bound's log-normalizer; None for none.
        units: ``"nats"`` or ``"bits"``.
        seed: Seed of splits, initialization and batches.
        accelerator: ``"cpu"``, ``"gpu"`` or ``"auto"``, as in ``lightning.pytorch.Trainer``.

    Returns:
        Matrices of the estimates, limits and p-values, and the result of each pair.

    Raises:
        EstimateInputError: The frame has no such column or fewer than two, or a column is not numbers or labels, has
            NaN, or too few rows; the message names the column.
        TypeError: An option has the wrong type.
        ValueError: An option is out of range.

    Warns:
        MIWarning: With so few permutations, the adjusted p-value of a single dependent pair cannot be below 0.05.

    Source: Holm 1979; Benjamini and Hochberg 1995.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> height = rng.normal(size=200)
        >>> weight = 0.8 * height + 0.6 * rng.normal(size=200)  # truth 0.511 nats
        >>> result = pairwise({"height": height, "weight": weight}, folds=2)
        >>> result.names, result.results["height", "weight"].p_value
        (('height', 'weight'), 0.001)
    """
    check_choice("adjust", adjust, get_args(Adjustment))
    variables = _read_variables(select_columns(frame, columns), read_kinds(discrete))
    pairs = list(combinations(range(len(variables)), 2))
    options = Options(
        folds=folds,
        members=members,
        budget=budget,
        permutations=default_permutations(len(pairs)) if permutations is None else permutations,
        confidence=confidence,
        critic=critic,
        bound=bound,
        regularizer=regularizer,
        units=units,
        seed=seed,
        accelerator=accelerator,
    )
    _check_permutations(options.permutations, len(pairs))
    grouping = read_groups(groups, blocks, len(variables[0].values))
    results = [_estimate_pair(variables[i], variables[j], options, grouping) for i, j in pairs]
    p_values = np.array([result.p_value for result in results])
    names = tuple(variable.name for variable in variables)

    def matrix(values: list[float]) -> NDArray[np.float64]:
        full = np.full((len(names), len(names)), np.nan)
        for (i, j), value in zip(pairs, values, strict=True):
            full[i, j] = full[j, i] = value
        return full

    return PairwiseMI(
        names=names,
        mi=matrix([result.mi for result in results]),
        lower=matrix([result.lower for result in results]),
        p_values=matrix(p_values.tolist()),
        adjusted_p_values=matrix(adjust_p_values(p_values, adjust).tolist()),
        adjust=adjust,
        units=units,
        results={(names[i], names[j]): result for (i, j), result in zip(pairs, results, strict=True)},
    )


def _check_permutations(permutations: int, num_pairs: int) -> None:
    smallest = min(1.0, num_pairs / (1 + permutations))
    if smallest >= LEVEL:
        warnings.warn(
            f"Got permutations={permutations} for {num_pairs} pairs: the adjusted p-value of a single dependent pair "
            f"is at least {smallest:.2g}, not below {LEVEL:g}. Pass permutations={default_permutations(num_pairs)}, or "
            "None for this number.",
            category=MIWarning,
            stacklevel=3,
        )


def _read_variables(data: dict[str, Any], discrete: dict[str, bool]) -> list[Variable]:
    if len(data) < 2:
        raise EstimateInputError(f"Got {len(data)} columns: pairs need at least 2.")
    if unknown := [name for name in discrete if name not in data]:
        raise EstimateInputError(f"Got discrete for {unknown[0]!r}: the columns are {', '.join(data)}.")
    variables = [read_variable(values, name, discrete.get(name)) for name, values in data.items()]
    check_lengths({variable.name: len(variable.values) for variable in variables})
    return variables


def _estimate_pair(x: Variable, y: Variable, options: Options, groups: Indices | None) -> MIEstimate:
    try:
        return run(x, y, options, groups)
    except MIError as error:
        raise type(error)(f"Columns {x.name} and {y.name}: {error}") from error
