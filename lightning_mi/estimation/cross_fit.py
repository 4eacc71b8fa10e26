"""Cross-fitting: each fold of the samples is scored by critics fitted to the other folds."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, final

import lightning.pytorch as L
import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic, GaussianCopulaCritic
from lightning_mi.estimation.contingency import table_critic
from lightning_mi.estimation.families import MANY_COORDINATES, MAX_CANONICAL, SEPARABLE, Family
from lightning_mi.estimation.fit import Fitted, Parts, fit_members
from lightning_mi.estimation.folds import Indices, MemberSplit, split_members
from lightning_mi.estimation.held_out import BLOCK, HeldOutBlock, Reading, held_out_scores, read
from lightning_mi.estimation.interruption import Interruption, StopIfInterrupted
from lightning_mi.estimation.joint_coordinates import Columns
from lightning_mi.estimation.schedule import Schedule
from lightning_mi.regularizers import AbstractRegularizer


class CrossFit(NamedTuple):
    """The held-out scores of all samples.

    Attributes:
        blocks: The scores; none of a fit to a fraction of the samples, as they take the most memory.
        test_blocks: The scores by critics that have trained, for the test of independence: critics that are as before
            training may give every pair the same score.
        reading: The bound's value of the scores.
        fitted: The critics.
        splits: The samples of each critic.
        complete: False if Ctrl-C ended the fit before its last step.
    """

    blocks: list[HeldOutBlock]
    test_blocks: list[HeldOutBlock]
    reading: Reading
    fitted: Fitted
    splits: list[MemberSplit]
    complete: bool = True

    @property
    def has_products(self) -> bool:
        """Whether the Gaussian of a critic describes products of ranks with the radius."""
        return any(critic.x_directions[: len(critic.x_directions) // 2].any() for critic in self._gaussian)

    @property
    def is_wide(self) -> bool:
        """Whether the Gaussian of a critic keeps canonical variables of many columns."""
        return any(
            critic.correlations.any() and max(critic.x_dim, critic.y_dim) > MANY_COORDINATES
            for critic in self._gaussian
        )

    @property
    def _gaussian(self) -> list[GaussianCopulaCritic]:
        critics = (member.critic for member in self.fitted.members)
        return [critic for critic in critics if isinstance(critic, GaussianCopulaCritic)]


@final
class CrossFitter:
    """Fits critics on folds of two variables.

    Args:
        x: (n, Cx) coordinates of x.
        y: (n, Cy) coordinates of y.
        folds: Samples of each fold.
        members: Critics of each fold.
        schedule: How long and how fast critics train.
        bound: Creates the bound that trains the critics.
        regularizer: Creates its regularizer, or None.
        critic: Creates a critic from the numbers of columns; by default a Gaussian copula
            with a neural residual, or of two labels the table of their counts.
        groups: (n,) samples of one group are in one fold.
        seed: Seed of splits, initialization and batches. Fitters with equal folds, members and seed have equal splits.
        callbacks: Of the fits.
        interruption: Whether Ctrl-C was pressed.
        **trainer: Arguments of ``lightning.pytorch.Trainer``.
    """

    def __init__(
        self,
        x: Columns,
        y: Columns,
        folds: list[Indices],
        *,
        members: int,
        schedule: Schedule,
        bound: Callable[[], AbstractBound],
        regularizer: Callable[[], AbstractRegularizer | None],
        critic: Callable[[int, int], AbstractCritic] | None = None,
        groups: Indices | None = None,
        seed: int = 0,
        callbacks: Sequence[L.Callback] = (),
        interruption: Interruption | None = None,
        **trainer: Any,
    ) -> None:
        self._x, self._y = x, y
        self._folds, self._members, self._schedule = folds, members, schedule
        self._make, self._bound, self._regularizer = critic, bound, regularizer
        self._groups, self._seed, self._trainer = groups, seed, trainer
        self._interruption = interruption or Interruption()
        self._callbacks = [*callbacks, StopIfInterrupted(self._interruption)]

    def __call__(self, fraction: float = 1.0, family: Family = SEPARABLE) -> CrossFit:
        """Fit critics to a fraction of the samples outside of their fold, and score all samples."""
        x, y = self._x.values, self._y.values
        rng = np.random.default_rng([self._seed, round(1e6 * fraction)])
        members = min(self._members, family.max_members or self._members)
        splits = split_members(self._folds, members, rng, self._groups, fraction)
        parts = Parts(partial(self._make_critic, family), self._bound, self._regularizer)
        with isolate_rng(include_cuda=False):
            fitted = fit_members(
                x, y, splits, parts, family, self._schedule, self._seed, self._callbacks, **self._trainer
            )
        complete = not self._interruption.requested
        blocks = held_out_scores([member.critic for member in fitted.members], x, y, self._folds, splits)
        reading = read(blocks)
        if fraction < 1:
            return CrossFit([], [], reading, fitted, splits, complete)
        all_trained = min(fitted.best_steps) > 0
        test_blocks = blocks if all_trained else held_out_scores(fitted.trained, x, y, self._folds, splits)
        return CrossFit(blocks, test_blocks, reading, fitted, splits, complete)

    def _make_critic(self, family: Family, split: MemberSplit) -> AbstractCritic:
        x, y = self._x, self._y
        dims = x.values.shape[1], y.values.shape[1]
        samples, held_out = ((x.values[rows], y.values[rows]) for rows in (split.train, split.validation[:BLOCK]))
        if self._make is not None:
            return self._make(*dims)
        if x.one_hot and y.one_hot:
            return table_critic(*samples)
        ranks = x.num_ranks, y.num_ranks  # products with the radius come first, which the residual does not see
        both = 2 * ranks[0], 2 * ranks[1]
        canonical = min(MAX_CANONICAL, *both) if family.canonical else 0
        seen = (canonical, canonical) if canonical else (dims[0] - ranks[0], dims[1] - ranks[1])
        critic = GaussianCopulaCritic(
            *dims,
            residual=family.residual(*seen),
            gaussian_dims=both,
            hidden_dims=ranks,
            canonical_dims=canonical or None,
        )
        ranks_alone = slice(ranks[0], both[0]), slice(ranks[1], both[1])
        with_products = slice(both[0]), slice(both[1])
        critic.fit(samples, held_out, (ranks_alone, with_products) if family.products else (ranks_alone,))
        return critic
