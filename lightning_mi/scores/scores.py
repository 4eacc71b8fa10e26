"""Scores: a batch's joint and marginal critic values, and the few reductions that bounds need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.layout import (
    Layout,
    check_default_columns,
    check_scores,
    check_square,
    lay_out_columns,
    lay_out_masks,
    lay_out_samples,
)
from lightning_mi.scores.tiles import AbstractTiles
from lightning_mi.utilities.distributed import world_size
from lightning_mi.utilities.numerics import mean_or_zero, upcast


@final
class Scores:
    """Critic values of a batch's joint and marginal pairs, in float32 or wider.

    Made by :meth:`from_matrix` (every x against every y), :meth:`from_columns` (the same, where they need not be there
    all at once) or :meth:`from_samples` (two lists of pairs). A bound only calls the reductions, so it cannot tell
    which it was given. With ``pooled`` the scores are one process's share of a batch, and each reduction runs over all
    processes, with gradient, and gives all of them the same: a bound cannot tell that either. Every process must then
    ask for it; :meth:`together` has them talk once for several, and :meth:`local` gives scores that talk to nobody.

    Attributes:
        joint: (J,) scores of the joint pairs of this process.
        y: (M, D) representations of the candidates, read only by a learned baseline; may be None.
        joint_columns: (J,) the candidate, a row of ``y``, that each joint pair uses.

    Example:
        >>> scores = Scores.from_matrix(torch.zeros(3, 3))
        >>> scores.num_joint, scores.num_marginal, scores.log_mean_exp()
        (3, 6, tensor(0.))
    """

    def __init__(self, layout: Layout, y: Tensor | None = None, pooled: bool | GlobalCounts = False) -> None:
        """Use :meth:`from_matrix` or one of its likes, which check what they take."""
        self.joint = layout.joint
        self.joint_columns = layout.joint_columns
        self.y = y
        self._layout = layout
        self._marginals = layout.marginals
        self._own = GlobalCounts(len(layout.joint), layout.num_marginal, layout.num_rows)
        self._pool = self._own
        self._known: Tensor | None = None  # the plain log-mean-exp, once a bound has asked: metrics ask too
        if isinstance(pooled, GlobalCounts):
            self._pool = pooled
        elif pooled and world_size() > 1:
            self._pool = self._own._replace(longest_row=self.num_candidates or 0).all_reduce(self.joint.device)

    @property
    def num_joint(self) -> int:
        """The number of joint pairs, of all processes if pooled.

        It is 0 where a pairing found none in the batch: a mean over them is then 0 with a zero gradient, and what a
        bound reads is finite but no estimate.
        """
        return self._pool.num_joint

    @property
    def num_marginal(self) -> int:
        """The number of marginal pairs, of all processes if pooled."""
        return self._pool.num_marginal

    @property
    def world_size(self) -> int:
        """How many processes read the same from these scores: all of them if pooled, else 1."""
        return self._pool.world_size

    @classmethod
    def from_matrix(
        cls,
        matrix: Tensor,
        *,
        joint: Tensor | None = None,
        marginal: Tensor | None = None,
        log_weights: Tensor | None = None,
        allow_no_joint: bool = False,
        allow_no_marginal: bool = False,
        y: Tensor | None = None,
        diagonal: int = 0,
        pooled: bool | GlobalCounts = False,
    ) -> Scores:
        """Take scores of every x (rows) against every candidate y (columns).

        Args:
            matrix: (N, M) scores, T(x_i, y_j) in row i and column j; any floating-point type.
            joint: (N, M) boolean, True at joint pairs; the diagonal by default.
            marginal: (N, M) boolean, True at marginal pairs; by default all pairs that are not joint, or, with
                ``log_weights``, all pairs.
            log_weights: (M,) log of the weight that each candidate has in a mean over marginal pairs; the weights sum
                to 1. A weight of 0 is a logarithm of -inf. Every entry is then a marginal pair. Equal by default.
            allow_no_joint: Take a ``joint`` mask without a single True; see ``num_joint``.
            allow_no_marginal: The same of ``marginal``: a bound's value is then not a number.
            y: (M, D) candidate representations, for a learned baseline.
            diagonal: The column of the first row's joint pair, without a ``joint`` mask; 0 by default.
            pooled: The rows are this process's share; the columns may be candidates of all processes. A share may be
                empty, all of them together not. Every process must say the same. The pool of all processes itself,
                where it is known, saves them an exchange of their counts.

        Raises:
            ValueError: The matrix is not two-dimensional, holds no joint or no marginal pair, a mask or the weights
                do not fit, the diagonal does not meet every row, or there is a diagonal beside a ``joint`` mask.

        Example:
            >>> Scores.from_matrix(torch.tensor([[2.0, 0.0], [1.0, 3.0]])).joint
            tensor([2., 3.])
        """
        shared = bool(pooled) and world_size() > 1
        check_scores(matrix, "matrix", ndim=2, may_be_empty=shared)
        _check_candidates(y, matrix.shape[1])
        matrix = upcast(matrix)
        if joint is not None and diagonal:
            raise ValueError(
                f"Got a `joint` mask and diagonal={diagonal}: both place the joint pairs. Give one of them."
            )
        if joint is None and marginal is None and log_weights is None:
            check_square(matrix, diagonal, may_be_wide=shared)
            layout = lay_out_columns(matrix, JointColumns.of_diagonal(matrix, diagonal))
        else:
            layout = lay_out_masks(matrix, joint, marginal, log_weights, diagonal)
        made = cls(layout, y, pooled)
        for name, has_some in (
            ("joint", made.num_joint or allow_no_joint),
            ("marginal", made.num_marginal or allow_no_marginal),
        ):
            if not has_some:
                raise ValueError(f"Got a `{name}` mask without a single True: a bound needs at least one {name} pair.")
        return made

    @classmethod
    def from_columns(
        cls,
        scores: Tensor | AbstractTiles,
        columns: JointColumns,
        *,
        y: Tensor | None = None,
        pooled: bool | GlobalCounts = False,
        tile_bytes: float | None = None,
    ) -> Scores:
        """Take scores of every x against every candidate y, with one joint pair in each row, in any column.

        Given what makes them, they are never there all at once unless they fit in a tile: every reduction, or its
        gradient, makes them tile by tile. It gives the same up to rounding, in memory that does not grow with N x M.

        Args:
            scores: (N, M) as in :meth:`from_matrix`, or what makes them, as :meth:`AbstractCritic.tiles` gives it.
            columns: Which of a row's candidates makes the joint pair, and which, if any, makes no pair.
            y: As in :meth:`from_matrix`.
            pooled: As in :meth:`from_matrix`.
            tile_bytes: The memory of a tile; by default what is fast on the device. ``math.inf`` keeps all scores,
                as a gradient of a gradient needs it.

        Raises:
            ValueError: ``tile_bytes`` is not positive, or the scores are not as in :meth:`from_matrix`.

        Example:
            >>> from lightning_mi.critics import InnerProductCritic
            >>> x, columns = torch.eye(4), JointColumns(torch.arange(4))
            >>> tiles = InnerProductCritic().tiles(x, x)
            >>> Scores.from_columns(tiles, columns, tile_bytes=32).log_mean_exp()  # two rows a tile
            tensor(0.)
        """
        if isinstance(scores, Tensor):
            check_scores(scores, "matrix", ndim=2, may_be_empty=bool(pooled) and world_size() > 1)
        _check_candidates(y, scores.shape[1])
        return cls(lay_out_columns(scores, columns, tile_bytes), y, pooled)

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
        """Take scores of two lists of pairs, without rows (so InfoNCE cannot use them).

        Args:
            joint: (J,) scores of joint pairs.
            marginal: (K,) scores of marginal pairs.
            joint_columns: (J,) rows of ``y`` that the joint pairs use; 0..J-1 by default.
            marginal_columns: (K,) rows of ``y`` that the marginal pairs use; by default J..J+K-1, the rows after those
                of the joint pairs, so that ``y`` has one row for each pair.
            allow_no_marginal: As in :meth:`from_matrix`.
            y: (M, D) candidate representations, for a learned baseline.
            pooled: As in :meth:`from_matrix`.

        Raises:
            ValueError: A list is empty or not one-dimensional, or ``y`` does not have the rows of the default columns.

        Example:
            >>> Scores.from_samples(torch.ones(2), torch.zeros(5)).num_marginal
            5
        """
        shared = bool(pooled) and world_size() > 1
        check_scores(joint, "joint", ndim=1, may_be_empty=shared)
        check_scores(marginal, "marginal", ndim=1, may_be_empty=shared or allow_no_marginal)
        if y is not None:
            check_default_columns(y, len(joint), len(marginal), joint_columns, marginal_columns)
        made = cls(lay_out_samples(joint, marginal, joint_columns, marginal_columns), y, pooled)
        if not (made.num_joint and (made.num_marginal or allow_no_marginal)):
            raise ValueError(
                f"Got {made.num_joint} joint and {made.num_marginal} marginal pairs over all processes: a bound "
                "needs at least one of each."
            )
        return made

    def local(self) -> Scores:
        """The same scores, with counts and reductions of this process's pairs alone: what an observer can ask alone."""
        if self._pool is self._own:
            return self
        return self._with(self._own)

    def detach(self) -> Scores:
        """The same scores without their autograd graph.

        Example:
            >>> scores = Scores.from_matrix(torch.eye(4, requires_grad=True))
            >>> scores.detach().log_mean_exp().requires_grad
            False
        """
        detached = self._with(self._pool)
        detached.joint, detached._marginals = self.joint.detach(), self._marginals.detach()
        detached.y = None if self.y is None else self.y.detach()
        detached._layout = dataclasses.replace(self._layout, joint=detached.joint, marginals=detached._marginals)
        detached._known = self._known
        return detached

    def together(self, read: Callable[[Scores], Iterable[Tensor]]) -> tuple[Tensor, ...]:
        """Several means at once: of pooled scores the processes talk to each other once, and not for each.

        Args:
            read: Asks the scores that it is given for means, and returns these as they are; :meth:`row_means` gives
                two of them.

        Returns:
            What the same questions, asked of these scores one by one, are answered with.

        Raises:
            ValueError: ``read`` returns something else.

        Example:
            >>> scores = Scores.from_matrix(torch.eye(4))
            >>> joint, marginal = scores.together(lambda own: (own.joint_mean(), own.log_mean_exp()))
            >>> joint - marginal
            tensor(1.)
        """
        if self._pool.deferred is not None:
            return tuple(read(self))
        own = self._with(self._pool._replace(deferred=[]))
        found = own._pool.reduce_deferred(read(own))
        if self.world_size == 1:
            self._known = own._known
        return found

    @property
    def num_candidates(self) -> int | None:
        """How many pairs the longest row holds; :meth:`row_ceiling` is what it means for InfoNCE.

        None where there are no rows, or where the candidates have unequal weights.
        """
        if self._layout.joint_rows is None or self._marginals.weighted:
            return None
        if self._pool.world_size > 1:
            return self._pool.longest_row
        count = self._layout.row_count
        return count if isinstance(count, int) else int(count.max()) if len(count) else 0

    @property
    def has_rows(self) -> bool:
        """Whether each joint pair has a row of candidates, as InfoNCE needs it."""
        return self._layout.joint_rows is not None

    @torch.no_grad()
    def row_ceiling(self) -> Tensor:
        r"""The most that InfoNCE can read on these pairs, whatever the critic: a scalar, nats.

        Let row i have candidates with weights w that sum to 1 and k joint pairs, and let s be the softmax of
        :math:`T + \log w` over the row. A joint pair contributes :math:`T - \log \sum w e^T = \log s - \log w`. The k
        values of s sum to 1 at most, so the sum of their logarithms is at most :math:`-k \log k`, and the mean over
        joint pairs is at most the mean of

        .. math:: -\log (w k).

        That is log N for one joint pair among N candidates of equal weight, log(N / k) for k of them, and -log q(y)
        where the candidates are labels with a prior q. Without a joint pair it is that of a row with one, and infinite
        with weights. Of pooled scores it is that of all ranks, which must all call it.

        Raises:
            ValueError: There are no rows.

        Example:
            >>> Scores.from_matrix(torch.zeros(4, 4)).row_ceiling()  # log 4
            tensor(1.3863)
        """
        rows, count = self.joint_rows, self._layout.row_count
        if isinstance(count, int):  # one joint pair in each row, and rows of one length on all ranks
            return self.joint.new_tensor(math.log(count))
        if self.num_joint == 0:
            return self.joint.new_tensor(math.inf if self.num_candidates is None else math.log(self.num_candidates))
        log_weights = self._layout.log_weights
        inverse = count[rows].to(self.joint).log() if log_weights is None else -log_weights[self.joint_columns]
        positives = torch.zeros_like(count).index_add_(0, rows, torch.ones_like(rows))
        return self.mean_over_joint(inverse - positives[rows].to(self.joint).log())

    @property
    def joint_rows(self) -> Tensor:
        """(J,) the row of each joint pair; ValueError where there are no rows."""
        if self._layout.joint_rows is None:
            raise ValueError(
                "Got two lists of pairs, but a bound over rows (InfoNCE) compares each joint pair with the marginal "
                "pairs of the same x. Use a pairing that scores all pairs, such as pairs.AllPairs()."
            )
        return self._layout.joint_rows

    def marginal_values(self, at_most: int | None = None) -> Tensor:
        """(K,) scores of the marginal pairs of this process, for histograms and tests; bounds use what is below.

        Args:
            at_most: Take every so-manyeth, so that there are no more than these; all by default.
        """
        return self._marginals.values(at_most)

    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest score of this process, without gradient; of no pair infinity and its negative."""
        low, high = self._marginals.extremes()
        if len(self.joint) == 0:
            return low, high
        joint_low, joint_high = self.joint.detach().aminmax()
        return torch.minimum(low, joint_low), torch.maximum(high, joint_high)

    def log_mean_exp(self, *, offset: Tensor | None = None, clip: float | None = None, power: float = 1.0) -> Tensor:
        """Log E_Q[exp(power * (clip(T) - offset))] over the marginal pairs.

        Args:
            offset: (M,) subtracted from the scores of each candidate.
            clip: Scores are first clamped to [-clip, clip].
            power: A factor in the exponent: 2 gives the second moment.

        Returns:
            A scalar, nats.
        """
        plain = offset is None and clip is None and power == 1.0
        waits = self._pool.deferred is not None  # for its sum, of which this is a part
        if plain and self._known is not None and not waits and not torch.is_grad_enabled():
            return self._known
        read = self._read_log_mean_exp(offset, clip, power)
        if plain:
            self._known = read.detach()
        return read

    def _with(self, pool: GlobalCounts) -> Scores:
        own = object.__new__(Scores)  # copy.copy takes several times as long, which a small critic's step would notice
        own.__dict__ |= self.__dict__ | {"_pool": pool, "_known": None}
        return own

    def _read_log_mean_exp(self, offset: Tensor | None, clip: float | None, power: float) -> Tensor:
        if self._own.num_marginal == 0:  # The logarithm of an empty sum, whose gradient is 0 and not NaN.
            return self._pool.log_sum(self.marginal_values().sum() - math.inf)
        # The weights of a row sum to 1, so that rows are what is counted.
        count = self._pool.num_rows if self._marginals.weighted else self.num_marginal
        return self._pool.log_sum(self._marginals.log_mean_exp(count, offset, clip, power))

    def row_log_mean_exp(self) -> Tensor:
        """(N,) log of the mean of exp(T) over the marginal and joint pairs of each row of this process, nats."""
        self.joint_rows  # noqa: B018  # which there may not be
        return self._marginals.row_log_mean_exp()

    def row_means(self) -> tuple[Tensor, Tensor]:
        """Means over joint pairs, of the score minus the row's log-mean-exp, and of the latter; scalars, nats.

        Subtracting within each row before the mean keeps digits that two means of large scores would lose.
        """
        joint_rows = self.joint_rows
        rows = self._marginals.row_log_mean_exp(alike=True)[joint_rows]
        over, rows = self.together(lambda own: (own.mean_over_joint(self.joint - rows), own.mean_over_joint(rows)))
        return over, rows

    def mean_softplus(self) -> Tensor:
        """E_Q[log(1 + exp(T))] over the marginal pairs: a scalar, nats."""
        count = self._pool.num_rows if self._marginals.weighted else self.num_marginal
        return self._pool.sum(self._marginals.softplus_sum() / count)

    def joint_mean(self, *, offset: Tensor | float | None = None, clip: float | None = None) -> Tensor:
        """E_P[clip(T) - offset] over the joint pairs; 0 with a zero gradient where there are none.

        Args:
            offset: (M,) subtracted from the scores of each candidate, or one number for all.
            clip: Scores are first clamped to [-clip, clip].

        Returns:
            A scalar, nats.
        """
        scores = self.joint if clip is None else self.joint.clamp(-clip, clip)
        if offset is not None:
            scores = scores - (offset[self.joint_columns] if isinstance(offset, Tensor) else offset)
        return self.mean_over_joint(scores)

    def joint_mean_softplus(self) -> Tensor:
        """E_P[log(1 + exp(-T))] over the joint pairs: a scalar, nats; 0 where there are none."""
        return self.mean_over_joint(softplus(-self.joint))

    def mean_over_joint(self, values: Tensor) -> Tensor:
        """The mean of values of the joint pairs, (J,); 0 with a zero gradient where there are none."""
        alone = self.world_size == 1
        return self._pool.sum(mean_or_zero(values) if alone else values.sum() / max(self.num_joint, 1))


def _check_candidates(y: Tensor | None, num_columns: int) -> None:
    if y is not None and len(y) != num_columns:
        raise ValueError(f"Got {len(y)} candidates `y` for {num_columns} columns of scores: there is one for each.")
