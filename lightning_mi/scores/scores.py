"""Scores: the critic's values at the joint and marginal pairs of a batch, and the reductions that bounds need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import final

import torch
from torch import Tensor

from lightning_mi.scores.checks import check_candidates, check_has_both, check_has_pairs, check_has_rows
from lightning_mi.scores.dense import Exponent
from lightning_mi.scores.global_counts import GlobalCounts, RankSums
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.lay_out import lay_out_columns, lay_out_matrix, lay_out_samples
from lightning_mi.scores.layout import Layout
from lightning_mi.scores.pair_functions import AbstractPairFunction, Softplus
from lightning_mi.scores.ring import RingTiles
from lightning_mi.scores.row_ceiling import row_ceiling
from lightning_mi.scores.row_means import RowStatistic, row_means
from lightning_mi.scores.tiles import AbstractTiles


@final
class Scores:
    """Critic values of a batch's joint pairs (positives) and marginal pairs (negatives), in float32 or wider.

    Use :meth:`from_matrix` (every x against every y), :meth:`from_columns` (the same, dense or in tiles) or
    :meth:`from_samples` (two lists of pairs). Bounds call only the reductions, so they do not depend on the form.

    With ``pooled`` the scores are this rank's shard of a batch: every rank must call each reduction, which runs over
    all ranks, with gradient. :meth:`together` runs several with one all-gather; :meth:`local` is this rank alone.

    Attributes:
        joint: (J,) scores of this rank's joint pairs.
        y: (M, D) representations of the candidates, for a learned baseline; may be None.
        joint_columns: (J,) the candidate, a row of ``y``, of each joint pair.

    Example:
        >>> scores = Scores.from_matrix(torch.zeros(3, 3))
        >>> scores.num_joint, scores.num_marginal, scores.log_mean_exp()
        (3, 6, tensor(0.))
    """

    def __init__(self, layout: Layout, y: Tensor | None = None, pooled: bool | GlobalCounts = False) -> None:
        """Use the class methods, which check their arguments."""
        self.y = y
        self.joint, self.joint_columns = layout.joint, layout.joint_columns
        self._layout = layout
        self._ranks = RankSums(layout.counts(pooled))

    @classmethod
    def from_matrix(
        cls,
        matrix: Tensor,
        *,
        joint: Tensor | None = None,
        marginal: Tensor | None = None,
        log_weights: Tensor | None = None,
        separate_joint: bool = False,
        allow_no_joint: bool = False,
        allow_no_marginal: bool = False,
        y: Tensor | None = None,
        diagonal: int = 0,
        pooled: bool | GlobalCounts = False,
    ) -> Scores:
        """Scores of every x (rows) against every candidate y (columns).

        Args:
            matrix: (N, M) scores, T(x_i, y_j) in row i and column j; any floating-point dtype.
            joint: (N, M) boolean, True at joint pairs; the diagonal by default. Or their weights in means over joint
                pairs, 0 elsewhere; a mean divides by the sum of the weights of all ranks.
            marginal: (N, M) boolean, True at marginal pairs; by default all others or, with ``log_weights``, all pairs.
            log_weights: (M,) log of each candidate's weight in a mean over marginal pairs; the weights sum to 1. Equal
                by default.
            separate_joint: In a row with several joint pairs, compare each with the marginal pairs alone.
            allow_no_joint: Accept a batch without joint pairs; see :attr:`num_joint`.
            allow_no_marginal: Accept a batch without marginal pairs; a bound's value is then NaN.
            y: (M, D) candidate representations, for a learned baseline.
            diagonal: Without a ``joint`` mask, the column of the first row's joint pair; 0 by default.
            pooled: The rows are this rank's shard, which may be empty; the columns may be candidates of all ranks.
                Every rank must pass the same. Known counts over all ranks save the collective that gathers them.

        Raises:
            ValueError: The matrix is not two-dimensional or has no joint or no marginal pair; a mask or weights do not
                fit; the diagonal has no entry in some row, or is passed with a ``joint`` mask.
        """
        arguments = joint, marginal, log_weights, diagonal, pooled, allow_no_marginal, separate_joint
        scores = cls(lay_out_matrix(matrix, *arguments), y, pooled)
        check_candidates(y, matrix.shape[-1])
        check_has_pairs("joint", scores.num_joint, allow_no_joint)
        check_has_pairs("marginal", scores.num_marginal, allow_no_marginal)
        return scores

    @classmethod
    def from_columns(
        cls,
        scores: Tensor | AbstractTiles | RingTiles,
        columns: JointColumns,
        *,
        y: Tensor | None = None,
        pooled: bool | GlobalCounts = False,
        tile_bytes: float | None = None,
    ) -> Scores:
        """Scores of every x against every candidate y, with one joint pair in each row, in any column.

        From tiles, reductions and gradients are computed tile by tile, in memory that does not grow with N x M. In a
        ring, ``columns`` and ``y`` are those of this rank.

        Args:
            scores: (N, M) as in :meth:`from_matrix`, or tiles of :meth:`AbstractCritic.tiles`.
            columns: The column of each row's joint pair, and the columns of each row that are excluded, if any.
            y: As in :meth:`from_matrix`.
            pooled: As in :meth:`from_matrix`.
            tile_bytes: Memory of a tile; a default if None. ``math.inf`` keeps all scores, as double backward needs.

        Raises:
            ValueError: ``tile_bytes`` is not positive, or the scores are not as in :meth:`from_matrix`.

        Example:
            >>> from lightning_mi.critics import InnerProductCritic
            >>> x, columns = torch.eye(4), JointColumns(torch.arange(4))
            >>> Scores.from_columns(InnerProductCritic().tiles(x, x), columns, tile_bytes=32).log_mean_exp()
            tensor(0.)
        """
        return cls(lay_out_columns(scores, columns, tile_bytes, pooled, y), y, pooled)

    @classmethod
    def from_samples(
        cls,
        joint: Tensor,
        marginal: Tensor,
        *,
        joint_columns: Tensor | None = None,
        marginal_columns: Tensor | None = None,
        allow_no_marginal: bool = False,
        y: Tensor | None = None,
        pooled: bool | GlobalCounts = False,
    ) -> Scores:
        """Scores of two lists of pairs, without rows (so InfoNCE cannot use them).

        Args:
            joint: (J,) scores of joint pairs.
            marginal: (K,) scores of marginal pairs.
            joint_columns: (J,) rows of ``y`` that the joint pairs use; 0..J-1 by default.
            marginal_columns: (K,) rows of ``y`` that the marginal pairs use; J..J+K-1 by default.
            allow_no_marginal: As in :meth:`from_matrix`.
            y: As in :meth:`from_matrix`.
            pooled: As in :meth:`from_matrix`.

        Raises:
            ValueError: A list is empty or not one-dimensional, or ``y`` does not have the rows of the default columns.
        """
        layout = lay_out_samples(joint, marginal, joint_columns, marginal_columns, y, pooled, allow_no_marginal)
        scores = cls(layout, y, pooled)
        check_has_both(scores.num_joint, scores.num_marginal, allow_no_marginal)
        return scores

    @property
    def num_joint(self) -> int:
        """Number of joint pairs, over all ranks if pooled. If it is 0, means over joint pairs and gradients are 0."""
        return self._ranks.counts.num_joint

    @property
    def num_marginal(self) -> int:
        """Number of marginal pairs, over all ranks if pooled."""
        return self._ranks.counts.num_marginal

    @property
    def joint_weight(self) -> float:
        """Sum of the weights of the joint pairs, over all ranks if pooled; their number if all weigh the same."""
        return self.num_joint if (weight := self._ranks.counts.joint_weight) is None else weight

    @property
    def world_size(self) -> int:
        """Number of ranks that the reductions run over: all of them if pooled, else 1."""
        return self._ranks.counts.world_size

    @property
    def num_candidates(self) -> int | None:
        """Number of pairs in the longest row; None without rows or with unequal weights."""
        local = self._layout.longest_row
        return local if local is None or self.world_size == 1 else self._ranks.counts.longest_row

    @property
    def has_rows(self) -> bool:
        """Whether each joint pair has a row of candidates, which InfoNCE needs."""
        return self._layout.joint_rows is not None

    @property
    def negatives_per_row(self) -> int | None:
        """Number of marginal pairs in each row, if each has one joint pair that is none of them; otherwise None."""
        return self._layout.negatives_per_row

    @property
    def joint_rows(self) -> Tensor:
        """(J,) the row of each joint pair; raises ValueError without rows."""
        return check_has_rows(self._layout.joint_rows)

    def local(self) -> Scores:
        """The same scores, with counts and reductions over this rank's pairs alone."""
        return self._with(RankSums(self._layout.counts()))

    def detach(self) -> Scores:
        """The same scores without their autograd graph."""
        return Scores(self._layout.detach(), None if self.y is None else self.y.detach(), self._ranks.counts)

    def together(self, read: Callable[[Scores], Iterable[Tensor]]) -> tuple[Tensor, ...]:
        """Several means with one all-gather.

        Args:
            read: Maps scores to several of their means, unchanged and in order; within it, they are not yet reduced.

        Raises:
            ValueError: ``read`` returns other tensors.

        Example:
            >>> scores = Scores.from_matrix(torch.eye(4))
            >>> joint, marginal = scores.together(lambda local: (local.joint_mean(), local.log_mean_exp()))
            >>> joint - marginal
            tensor(1.)
        """
        if self._ranks.deferred is not None:
            return tuple(read(self))
        deferring = self._with(self._ranks.deferring())
        return deferring._ranks.reduce_deferred(read(deferring))

    @torch.no_grad()
    def row_ceiling(self) -> Tensor:
        """The largest value of InfoNCE with any critic: a scalar, nats; see ``scores/row_ceiling.py``."""
        return row_ceiling(self._layout, self.num_joint, self.num_candidates, self.mean_over_joint)

    def marginal_values(self, at_most: int | None = None) -> Tensor:
        """(K,) scores of this rank's marginal pairs (in a ring, with its candidates), subsampled to at most so many."""
        return self._layout.marginals.values(at_most)

    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest score of this rank, without gradient; (inf, -inf) without pairs."""
        return self._layout.extremes()

    def log_mean_exp(self, *, offset: Tensor | None = None, clip: float | None = None, power: float = 1.0) -> Tensor:
        """Log E_Q[exp(power * (clip(T) - offset))] over the marginal pairs: a scalar, nats.

        Args:
            offset: (M,) subtracted from the scores of each candidate.
            clip: Scores are first clamped to [-clip, clip].
            power: A factor in the exponent: 2 gives the second moment.
        """
        local = self._layout.log_mean_exp(self._ranks.counts, Exponent(offset, clip, power))
        return self._ranks.reduce(local, is_log=True)

    def row_log_mean_exp(self, *, joint: bool = True, power: float = 1.0) -> Tensor:
        """(N,) log-mean-exp of power * T in each row of this rank: its marginal and, by default, joint pairs; nats."""
        return self._layout.row_log_mean_exp(joint, power)

    def joint_row_log_mean_exp(self, *, joint: bool = True) -> Tensor:
        """(J,) :meth:`row_log_mean_exp` of the row of each joint pair; see ``separate_joint``."""
        return self._layout.joint_row_log_mean_exp(joint)

    def row_means(self, statistic: RowStatistic = "log_mean_exp") -> tuple[Tensor, Tensor]:
        """Means of the score minus a statistic of its row, and of the statistic; scalars, nats."""
        return row_means(self._layout, statistic, self.together)

    def marginal_mean(self) -> Tensor:
        """E_Q[T] over the marginal pairs: a scalar, nats."""
        return self._ranks.reduce(self._layout.mean(self._ranks.counts))

    def mean_softplus(self, shift: float = 0.0) -> Tensor:
        """E_Q[log(1 + exp(T - shift))] over the marginal pairs: a scalar, nats."""
        return self.mean_over_marginal(Softplus(shift))

    def mean_over_marginal(self, function: AbstractPairFunction) -> Tensor:
        """Mean of a function of the scores over the marginal pairs: a scalar."""
        return self._ranks.reduce(self._layout.mean_over_marginal(function, self._ranks.counts))

    def joint_mean(self, *, offset: Tensor | float | None = None, clip: float | None = None) -> Tensor:
        """E_P[clip(T) - offset] over the joint pairs, as in :meth:`log_mean_exp`; the offset may be one number."""
        scores = self.joint if clip is None else self.joint.clamp(-clip, clip)
        if offset is not None:
            scores = scores - (offset[self.joint_columns] if isinstance(offset, Tensor) else offset)
        return self.mean_over_joint(scores)

    def joint_mean_softplus(self, shift: float = 0.0) -> Tensor:
        """E_P[log(1 + exp(shift - T))] over the joint pairs: a scalar, nats."""
        return self.mean_over_joint(Softplus(-shift).value(-self.joint))

    def joint_log_mean_exp(self, power: float) -> Tensor:
        """Log E_P[exp(power * T)] over the joint pairs: a scalar, nats; 0 with a zero gradient without joint pairs."""
        local = self._layout.joint_log_mean_exp(self._ranks.counts, power)
        return self._ranks.reduce(local, is_log=self.num_joint > 0)

    def mean_over_joint(self, values: Tensor) -> Tensor:
        """Mean of (J,) values of the joint pairs; 0 with a zero gradient without joint pairs."""
        return self._ranks.reduce(self._layout.mean_over_joint(values, self._ranks.counts))

    def _with(self, ranks: RankSums) -> Scores:
        scores = copy.copy(self)
        scores._ranks = ranks
        return scores
