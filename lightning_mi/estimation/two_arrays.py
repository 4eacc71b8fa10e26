"""estimate: the mutual information of two arrays."""

from __future__ import annotations  # the signature shows ArrayLike by its name

from collections.abc import Callable, Mapping

from numpy.typing import ArrayLike

from lightning_mi.bounds import DV, AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.estimation.inputs import read_kinds, read_variable
from lightning_mi.estimation.options import Budget, Options
from lightning_mi.estimation.result import MIEstimate, Units
from lightning_mi.estimation.run import read_groups, run
from lightning_mi.regularizers import AbstractRegularizer, Squared


def estimate(
    x: ArrayLike,
    y: ArrayLike,
    *,
    conditional_on: ArrayLike | None = None,
    discrete: Mapping[str, bool] | None = None,
    groups: ArrayLike | None = None,
    blocks: int | None = None,
    folds: int = 4,
    members: int | None = None,
    budget: Budget = "standard",
    permutations: int = 999,
    confidence: float = 0.95,
    critic: Callable[[int, int], AbstractCritic] | None = None,
    bound: AbstractBound = DV(),  # noqa: B008  # copied for each critic
    regularizer: AbstractRegularizer | None = Squared(weight=0.1),  # noqa: B008
    units: Units = "nats",
    seed: int = 0,
    accelerator: str = "cpu",
    progress: bool | None = None,
) -> MIEstimate:
    """Estimate the mutual information of two arrays, with a limit, a test and a diagnosis.

    Critics are cross-fitted: the samples are split into folds, and each fold is scored by critics that were fitted to
    the others. A critic sees Gaussian ranks of each column; it starts as the Gaussian copula, in closed form, and a
    neural residual adds what the copula misses. The value is that of the Donsker-Varadhan bound on the held-out scores,
    extrapolated in the number of samples for the fit.

    With ``conditional_on=z`` it is the conditional MI I(x; y | z) = I(x; y, z) - I(x; z), of critics with the same
    folds and splits. Then ``lower`` rests on the extrapolation of I(x; z), and there is a test for labels z only.

    The first Ctrl-C ends the fits: the result is that of the critics so far, with ``complete`` False. The second raises
    KeyboardInterrupt.

    Args:
        x: (n,) or (n, Dx): an array, tensor, or columns of a data frame.
        y: (n,) or (n, Dy).
        conditional_on: z, (n,) or (n, Dz), for the conditional MI; None for none.
        discrete: Whether ``"x"``, ``"y"`` and ``"z"`` are labels without an order, as ``{"y": True}``; detected by
            default.
        groups: (n,) samples of one group stay in one fold, such as all samples of a person.
        blocks: Length of blocks of consecutive samples that stay in one fold, for time series.
        folds: The number of folds, at least 2.
        members: Critics of each fold, whose scores are averaged; by default from the budget.
        budget: ``"quick"`` without extrapolation, ``"standard"``, or ``"careful"`` with more critics and steps.
        permutations: Of the test of independence, at least 19.
        confidence: Probability of the limits.
        critic: Creates a critic from the numbers of columns of x and y in critic coordinates.
        bound: Trains the critics.
        regularizer: Holds the bound's log-normalizer; None for none.
        units: ``"nats"`` or ``"bits"``.
        seed: Seed of splits, initialization and batches.
        accelerator: ``"cpu"``, ``"gpu"`` or ``"auto"``, as in ``lightning.pytorch.Trainer``.
        progress: Whether to draw a progress bar with the time left on stderr; by default in terminals and notebooks.

    Raises:
        EstimateInputError: x, y or z is not numbers or labels, has NaN, or too few rows; or their lengths differ.
        TypeError: An option has the wrong type.
        ValueError: An option is out of range.
        KeyboardInterrupt: At the second Ctrl-C.

    Source: Donsker and Varadhan 1983; Choi and Lee 2022 (regularization); Cover and Thomas 2006, chapter 2 (chain
    rule).

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(400, 1))
        >>> result = estimate(x, 0.8 * x + 0.6 * rng.normal(size=x.shape), budget="quick")  # truth 0.511
        >>> result.lower < 0.511 < result.mi + 0.2
        True

        A common cause z of x and y:

        >>> z = rng.normal(size=200)
        >>> x, y = z + rng.normal(size=200), z + rng.normal(size=200)
        >>> abs(estimate(x, y, conditional_on=z, budget="quick", folds=2).mi) < 0.2  # truth 0
        True
    """
    options = Options(
        folds=folds,
        members=members,
        budget=budget,
        permutations=permutations,
        confidence=confidence,
        critic=critic,
        bound=bound,
        regularizer=regularizer,
        units=units,
        seed=seed,
        accelerator=accelerator,
        progress=progress,
    )
    kinds = read_kinds(discrete, ("x", "y") if conditional_on is None else ("x", "y", "z"))
    first, second = (read_variable(data, name, kinds.get(name)) for data, name in ((x, "x"), (y, "y")))
    condition = None if conditional_on is None else read_variable(conditional_on, "z", kinds.get("z"))
    grouping = read_groups(groups, blocks, len(first.values))
    return run(first, second, options, grouping, condition)
