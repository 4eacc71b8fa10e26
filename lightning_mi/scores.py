"""Scores: a batch's joint and marginal critic values, and the few reductions that bounds need."""

from __future__ import annotations

import copy
import math
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_mi.distributed import world_size
from lightning_mi.numerics import log_mean_exp, mean_or_zero, upcast
from lightning_mi.pooling import Pool
from lightning_mi.score_layout import Rows, check_scores, diagonal_layout, mask_layout


@final
class Scores:
    """Critic values of a batch's joint and marginal pairs, in float32 or wider.

    Made by :meth:`from_matrix` (every x against every y) or :meth:`from_samples` (two lists of pairs). A bound only
    calls the reductions, so it cannot tell which of the two it was given. With ``pooled`` the scores are one process's
    share of a batch, and each reduction runs over all processes, with gradient, and gives all of them the same: a bound
    cannot tell that either. Every process must then ask for it; :meth:`local` gives scores that talk to nobody.

    Attributes:
        joint: (J,) scores of the joint pairs of this process.
        y: (M, D) representations of the candidates, read only by a learned baseline; may be None.
        joint_columns: (J,) the candidate, a row of ``y``, that each joint pair uses.

    Example:
        >>> scores = Scores.from_matrix(torch.zeros(3, 3))
        >>> scores.num_joint, scores.num_marginal, scores.log_mean_exp()
        (3, 6, tensor(0.))
    """

    def __init__(
        self,
        joint: Tensor,
        marginal: Tensor,
        *,
        joint_columns: Tensor,
        num_marginal: int,
        marginal_mask: Tensor | None = None,
        marginal_columns: Tensor | None = None,
        rows: Rows | None = None,
        log_weights: Tensor | None = None,
        y: Tensor | None = None,
        pooled: bool = False,
    ) -> None:
        """Use :meth:`from_matrix` or :meth:`from_samples`: this only stores what they have checked."""
        self.joint = joint
        self.joint_columns = joint_columns
        self.y = y
        self._marginal = marginal
        self._marginal_mask = marginal_mask
        self._marginal_columns = marginal_columns
        self._rows = rows
        self._log_weights = log_weights
        self._own = Pool(joint.numel(), num_marginal, len(marginal))
        self._pool = self._own
        if pooled and world_size() > 1:
            longest = self.num_candidates or 0
            self._pool = self._own._replace(longest_row=longest).over_processes(joint.device)

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
    def copies(self) -> int:
        """How many processes read the same from these scores: all of them if pooled, else 1."""
        return self._pool.copies

    @classmethod
    def from_matrix(
        cls,
        matrix: Tensor,
        *,
        joint: Tensor | None = None,
        marginal: Tensor | None = None,
        log_weights: Tensor | None = None,
        allow_no_joint: bool = False,
        y: Tensor | None = None,
        diagonal: int = 0,
        pooled: bool = False,
    ) -> Scores:
        """Take scores of every x (rows) against every candidate y (columns).

        Args:
            matrix: (N, M) scores, T(x_i, y_j) in row i and column j; any floating-point type.
            joint: (N, M) boolean, True at joint pairs; the diagonal by default.
            marginal: (N, M) boolean, True at marginal pairs; all but the diagonal by default, or all with weights.
            log_weights: (M,) log of the weight that each candidate has in a mean over marginal pairs; the weights sum
                to 1. A weight of 0 is a logarithm of -inf. Every entry is then a marginal pair. Equal by default.
            allow_no_joint: Take a ``joint`` mask without a single True; see ``num_joint``.
            y: (M, D) candidate representations, for a learned baseline.
            diagonal: The column of the first row's joint pair, where no mask says which pairs are joint.
            pooled: The rows are this process's share; the columns may be candidates of all processes. A share may be
                empty, all of them together not. Every process must say the same.

        Raises:
            ValueError: The matrix is not two-dimensional, holds no joint or no marginal pair, or a mask or the weights
                do not fit.

        Example:
            >>> Scores.from_matrix(torch.tensor([[2.0, 0.0], [1.0, 3.0]])).joint
            tensor([2., 3.])
        """
        pooled = pooled and world_size() > 1
        check_scores(matrix, "matrix", ndim=2, may_be_empty=pooled)
        if y is not None and len(y) != matrix.shape[1]:
            raise ValueError(
                f"Got {len(y)} candidates `y` for {matrix.shape[1]} columns of scores: there is one for each."
            )
        matrix = upcast(matrix)
        if joint is None and marginal is None and log_weights is None:
            layout = diagonal_layout(matrix, diagonal, may_be_wide=pooled)
        else:
            layout = mask_layout(matrix, joint, marginal, log_weights, diagonal)
        made = cls(
            layout.joint,
            matrix,
            joint_columns=layout.joint_columns,
            num_marginal=layout.num_marginal,
            marginal_mask=layout.marginal,
            rows=layout.rows,
            log_weights=layout.log_weights,
            y=y,
            pooled=pooled,
        )
        for name, count in (("joint", made.num_joint or allow_no_joint), ("marginal", made.num_marginal)):
            if not count:
                raise ValueError(f"Got a `{name}` mask without a single True: a bound needs at least one {name} pair.")
        return made

    @classmethod
    def from_samples(
        cls,
        joint: Tensor,
        marginal: Tensor,
        *,
        joint_columns: Tensor | None = None,
        marginal_columns: Tensor | None = None,
        y: Tensor | None = None,
        pooled: bool = False,
    ) -> Scores:
        """Take scores of two lists of pairs, without rows (so InfoNCE cannot use them).

        Args:
            joint: (J,) scores of joint pairs.
            marginal: (K,) scores of marginal pairs.
            joint_columns: (J,) rows of ``y`` that the joint pairs use; 0..J-1 by default.
            marginal_columns: (K,) rows of ``y`` that the marginal pairs use; J..J+K-1 by default.
            y: (M, D) candidate representations, for a learned baseline.
            pooled: As in :meth:`from_matrix`.

        Raises:
            ValueError: A list is empty or not one-dimensional.

        Example:
            >>> Scores.from_samples(torch.ones(2), torch.zeros(5)).num_marginal
            5
        """
        pooled = pooled and world_size() > 1
        check_scores(joint, "joint", ndim=1, may_be_empty=pooled)
        check_scores(marginal, "marginal", ndim=1, may_be_empty=pooled)
        if joint_columns is None:
            joint_columns = torch.arange(joint.numel(), device=joint.device)
        if marginal_columns is None:
            marginal_columns = joint.numel() + torch.arange(marginal.numel(), device=joint.device)
        for name, scores, columns in (("joint", joint, joint_columns), ("marginal", marginal, marginal_columns)):
            if columns.shape != scores.shape:
                raise ValueError(
                    f"Got {name}_columns of shape {tuple(columns.shape)} for {name} scores of shape "
                    f"{tuple(scores.shape)}: each score uses one candidate."
                )
        made = cls(
            upcast(joint),
            upcast(marginal),
            joint_columns=joint_columns,
            num_marginal=marginal.numel(),
            marginal_columns=marginal_columns,
            y=y,
            pooled=pooled,
        )
        if not (made.num_joint and made.num_marginal):
            raise ValueError(
                f"Got {made.num_joint} joint and {made.num_marginal} marginal pairs over all processes: a bound "
                "needs at least one of each."
            )
        return made

    def local(self) -> Scores:
        """The same scores, with counts and reductions of this process's pairs alone: what an observer can ask alone."""
        own = copy.copy(self)
        own._pool = self._own
        return own

    @property
    def num_candidates(self) -> int | None:
        """How many pairs the longest row holds, the N in InfoNCE's ceiling log N.

        None where there are no rows, or where the candidates have unequal weights.
        """
        if self._rows is None or self._log_weights is not None:
            return None
        if self._pool.copies > 1:
            return self._pool.longest_row
        count = self._rows.count
        return count if isinstance(count, int) else int(count.max()) if len(count) else 0

    @property
    def joint_rows(self) -> Tensor:
        """(J,) the row of each joint pair; ValueError where there are no rows."""
        return self._require_rows().joint

    def marginal_values(self) -> Tensor:
        """(K,) scores of all marginal pairs of this process, for histograms and tests; bounds use what is below."""
        return self._marginal.flatten() if self._marginal_mask is None else self._marginal[self._marginal_mask]

    def log_mean_exp(self, *, offset: Tensor | None = None, clip: float | None = None, power: float = 1.0) -> Tensor:
        """Log E_Q[exp(power * (clip(T) - offset))] over the marginal pairs.

        Args:
            offset: (M,) subtracted from the scores of each candidate.
            clip: Scores are first clamped to [-clip, clip].
            power: A factor in the exponent: 2 gives the second moment.

        Returns:
            A scalar, nats.
        """
        if self._own.num_marginal == 0:  # The logarithm of an empty sum, whose gradient is 0 and not NaN.
            return self._pool.log_sum(self.marginal_values().sum() - math.inf)
        scores = self._marginal if clip is None else self._marginal.clamp(-clip, clip)
        if offset is not None:
            scores = scores - (offset if self._marginal_columns is None else offset[self._marginal_columns])
        if power != 1.0:
            scores = power * scores
        if self._log_weights is not None:  # They sum to 1 in each row, so the rows are what is counted.
            return self._pool.log_sum(log_mean_exp(scores, count=self._pool.num_rows, log_weights=self._log_weights))
        return self._pool.log_sum(log_mean_exp(scores, self._marginal_mask, count=self.num_marginal))

    def row_log_mean_exp(self) -> Tensor:
        """(N,) log of the mean of exp(T) over the marginal and joint pairs of each row of this process, nats."""
        rows = self._require_rows()
        if self._log_weights is not None:
            return log_mean_exp(self._marginal, count=1, dim=1, log_weights=self._log_weights)
        return log_mean_exp(self._marginal, rows.mask, count=rows.count, dim=1)

    def mean_softplus(self) -> Tensor:
        """E_Q[log(1 + exp(T))] over the marginal pairs: a scalar, nats."""
        values = softplus(self._marginal)
        if self._log_weights is not None:
            return self._pool.sum((values * self._log_weights.exp()).sum() / self._pool.num_rows)
        if self._marginal_mask is not None:
            values = values.masked_fill(~self._marginal_mask, 0.0)
        return self._pool.sum(values.sum() / self.num_marginal)

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
        if self.copies == 1:
            return mean_or_zero(values)
        return self._pool.sum(values.sum() / max(self.num_joint, 1))

    def _require_rows(self) -> Rows:
        if self._rows is None:
            raise ValueError(
                "Got two lists of pairs, but a bound over rows (InfoNCE) compares each joint pair with the marginal "
                "pairs of the same x. Use a pairing that scores all pairs, such as pairs.AllPairs()."
            )
        return self._rows
