"""MutualInformationEstimator: the estimate of two arrays as an estimator of scikit-learn.

The only module that imports scikit-learn at its top, for the base class: nothing in the package imports this module but
the lazy export of its name.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from lightning_mi.bounds import DV, AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.estimation.arrays import check_unmasked
from lightning_mi.estimation.fitted_critics import FittedCritics
from lightning_mi.estimation.inputs import read_kinds, read_variable
from lightning_mi.estimation.options import Budget, Options
from lightning_mi.estimation.result import MIEstimate, Units
from lightning_mi.estimation.run import read_groups, run_and_keep
from lightning_mi.regularizers import AbstractRegularizer, Squared
from lightning_mi.utilities.checks import check_choice, check_whole


@final
class MutualInformationEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """The mutual information of two arrays, with the conventions of scikit-learn.

    :func:`lightning_mi.estimate` as an object. :meth:`score` is a lower bound of the MI of new pairs, so that
    ``cross_val_score`` and ``GridSearchCV`` choose options by pairs that the critics have not seen. :meth:`pointwise`
    is the log density ratio of new pairs. :meth:`fit` checks the options.

    Args:
        discrete: Whether ``"x"`` and ``"y"`` are labels without an order, as ``{"y": True}``; detected by default.
        blocks: Length of blocks of consecutive samples that stay in one fold, for time series.
        folds: The number of folds, at least 2.
        members: Critics of each fold, whose scores are averaged; by default from the budget.
        budget: ``"quick"`` without extrapolation, ``"standard"``, or ``"careful"`` with more critics and steps.
        permutations: Of the test of independence, at least 19.
        confidence: Probability of the limits.
        critic: Creates a critic from the numbers of columns of X and y in critic coordinates.
        bound: Trains the critics; None for ``bounds.DV()``.
        regularizer: Holds the bound's log-normalizer; ``"default"`` for ``regularizers.Squared(weight=0.1)``, None for
            none.
        units: ``"nats"`` or ``"bits"``, of the estimate, :meth:`score` and :meth:`pointwise`.
        random_state: Seed of splits, initialization and batches: a whole number, a ``RandomState``, or None for a new
            seed in each fit. A whole number gives the result of ``estimate(..., seed=random_state)``.
        accelerator: ``"cpu"``, ``"gpu"`` or ``"auto"``, as in ``lightning.pytorch.Trainer``.

    Attributes:
        mi_: The estimate, in ``units``.
        result_: The :class:`~lightning_mi.MIEstimate`, with limits, p-value and findings.
        critics_: The :class:`~lightning_mi.critics.AbstractCritic` of each member.
        n_features_in_: Dx.
        feature_names_in_: (Dx,) names of the columns of X, if it is a data frame with text as names.

    Source: Donsker and Varadhan 1983; Choi and Lee 2022 (regularization).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(400, 1))
        >>> y = 0.8 * X[:, 0] + 0.6 * rng.normal(size=400)  # truth 0.511 nats
        >>> estimator = MutualInformationEstimator(budget="quick", folds=2).fit(X[:200], y[:200])
        >>> 0.3 < estimator.score(X[200:], y[200:]) < 0.7
        True
        >>> estimator.pointwise(X[:3], y[:3]).shape
        (3,)
    """

    def __init__(
        self,
        *,
        discrete: Mapping[str, bool] | None = None,
        blocks: int | None = None,
        folds: int = 4,
        members: int | None = None,
        budget: Budget = "standard",
        permutations: int = 999,
        confidence: float = 0.95,
        critic: Callable[[int, int], AbstractCritic] | None = None,
        bound: AbstractBound | None = None,
        regularizer: AbstractRegularizer | Literal["default"] | None = "default",
        units: Units = "nats",
        random_state: int | np.random.RandomState | None = 0,
        accelerator: str = "cpu",
    ) -> None:
        self.discrete = discrete
        self.blocks = blocks
        self.folds = folds
        self.members = members
        self.budget = budget
        self.permutations = permutations
        self.confidence = confidence
        self.critic = critic
        self.bound = bound
        self.regularizer = regularizer
        self.units = units
        self.random_state = random_state
        self.accelerator = accelerator

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> "MutualInformationEstimator":
        """Estimate the MI of X and y, and keep the critics.

        Args:
            X: (n, Dx): an array, tensor or data frame, n at least 50.
            y: (n,) or (n, Dy).
            groups: (n,) samples of one group stay in one fold, such as all samples of a person.

        Returns:
            The estimator.

        Raises:
            EstimateInputError: X or y is not numbers or labels, has NaN, or too few rows; or their lengths differ.
            TypeError: An option has the wrong type, or X is sparse.
            ValueError: An option is out of range, or X is not two-dimensional or not finite.
        """
        options = self._options()
        first = self._check(X, y, reset=True)
        kinds = read_kinds(self.discrete, ("x", "y"))
        variables = (read_variable(first, "x", kinds.get("x")), read_variable(y, "y", kinds.get("y")))
        grouping = read_groups(groups, self.blocks, len(first))
        run = run_and_keep(*variables, options, grouping)
        self._fitted = FittedCritics(run, *variables)
        self._unit = options.unit
        self.critics_ = [member.critic for member in run.fit.fitted.members]
        self.result_: MIEstimate = run.result
        self.mi_ = run.result.mi
        return self

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """The Donsker-Varadhan bound on the MI of new pairs, by the mean of all critics of the fit; in ``units``.

        Compare it with ``result_.learning_curve[-1].mi``: unlike ``mi_``, it is not extrapolated. On pairs of the fit,
        it is too high. Beyond 2048 pairs, the marginal pairs are those within random blocks of at most 2048 pairs.

        Args:
            X: (m, Dx), m at least 2.
            y: (m,) or (m, Dy).

        Raises:
            EstimateInputError: A label is not among those of the fit, y has another number of columns or has NaN, or
                the lengths differ.
            NotFittedError: :meth:`fit` was not called.
            ValueError: X is not two-dimensional or not finite, or has another number of columns than in the fit.
        """
        check_is_fitted(self)
        return self._unit * self._fitted.score(self._check(X, y), y)

    def pointwise(self, X: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """(m,) log p(x, y) / (p(x) p(y)) of new pairs, by the mean of all critics of the fit; in ``units``.

        The log-normalizer is that over the samples of the fit, so that the value of a pair does not depend on the other
        pairs. For pairs of the fit, ``result_.pointwise`` uses only critics that have not seen them.

        Args:
            X: (m, Dx), m at least 1.
            y: (m,) or (m, Dy).

        Raises:
            EstimateInputError: As for :meth:`score`.
            NotFittedError: :meth:`fit` was not called.
            ValueError: As for :meth:`score`.
        """
        check_is_fitted(self)
        return self._unit * self._fitted.pointwise(self._check(X, y), y)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    def _check(self, X: ArrayLike, y: ArrayLike | None, *, reset: bool = False) -> NDArray[Any]:
        """X as an array of its own type, as integers and Booleans may be labels; y is only checked not to be None."""
        check_unmasked(X, "x")
        target = None if y is None else "no_validation"
        checked: NDArray[Any] = validate_data(self, X, y=target, reset=reset, dtype=None)
        return checked

    def _options(self) -> Options:
        seed = self.random_state
        if seed is None or isinstance(seed, np.random.RandomState):
            seed = int(check_random_state(seed).randint(2**31 - 1))
        check_whole("random_state", seed, 0)
        return Options(
            folds=self.folds,
            members=self.members,
            budget=self.budget,
            permutations=self.permutations,
            confidence=self.confidence,
            critic=self.critic,
            bound=DV() if self.bound is None else self.bound,
            regularizer=self._regularizer(),
            units=self.units,
            seed=seed,
            accelerator=self.accelerator,
        )

    def _regularizer(self) -> AbstractRegularizer | None:
        if isinstance(self.regularizer, str):
            check_choice("regularizer", self.regularizer, ("default",))
            return Squared(weight=0.1)
        return self.regularizer
