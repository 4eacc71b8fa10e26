"""Scores: a batch's joint and marginal critic values, and the few reductions that bounds need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_mi.numerics import log_mean_exp, mean_or_zero, upcast


@dataclass(frozen=True)
class _Rows:
    """How the pairs of a score matrix lie in rows, one row an x."""

    joint: Tensor  # (J,) the row of each joint pair
    mask: Tensor | None  # (N, M) the marginal pairs and the joint pairs of each row; None if that is every entry
    count: Tensor | int  # (N,) how many that is; an int if it is the same in every row


@final
class Scores:
    """Critic values of a batch's joint and marginal pairs, in float32 or wider.

    Made by :meth:`from_matrix` (every x against every y) or :meth:`from_samples` (two lists of pairs). A bound only
    calls the reductions, so it cannot tell which of the two it was given.

    Attributes:
        joint: (J,) scores of the joint pairs.
        num_joint: J. It is 0 where a pairing found no joint pair in the batch: a mean over them is then 0 with a zero
            gradient, and what a bound reads is finite but no estimate.
        num_marginal: The number of marginal pairs.
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
        rows: _Rows | None = None,
        log_weights: Tensor | None = None,
        y: Tensor | None = None,
    ) -> None:
        """Use :meth:`from_matrix` or :meth:`from_samples`: this only stores what they have checked."""
        self.joint = joint
        self.num_joint = joint.numel()
        self.num_marginal = num_marginal
        self.joint_columns = joint_columns
        self.y = y
        self._marginal = marginal
        self._marginal_mask = marginal_mask
        self._marginal_columns = marginal_columns
        self._rows = rows
        self._log_weights = log_weights

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

        Raises:
            ValueError: The matrix is not two-dimensional, holds no joint or no marginal pair, or a mask or the weights
                do not fit.

        Example:
            >>> Scores.from_matrix(torch.tensor([[2.0, 0.0], [1.0, 3.0]])).joint
            tensor([2., 3.])
        """
        _check_scores(matrix, "matrix", ndim=2)
        num_rows, num_columns = matrix.shape
        matrix = upcast(matrix)
        if y is not None and len(y) != num_columns:
            raise ValueError(f"Got {len(y)} candidates `y` for {num_columns} columns of scores: there is one for each.")
        if joint is None and marginal is None and log_weights is None:
            if num_rows != num_columns or num_rows < 2:
                raise ValueError(
                    f"Got scores of shape {tuple(matrix.shape)}: without masks the diagonal holds the joint pairs and "
                    "the rest the marginal pairs, which takes a square matrix of at least 2 x 2. "
                    "Use a batch of two or more samples, or pass `joint` and `marginal`."
                )
            diagonal = torch.arange(num_rows, device=matrix.device)
            return cls(
                matrix.diagonal(),
                matrix,
                joint_columns=diagonal,
                num_marginal=num_rows * (num_rows - 1),
                marginal_mask=~torch.eye(num_rows, dtype=torch.bool, device=matrix.device),
                rows=_Rows(diagonal, mask=None, count=num_columns),
                y=y,
            )
        eye = torch.eye(num_rows, num_columns, dtype=torch.bool, device=matrix.device)
        if marginal is None:
            marginal = ~eye if log_weights is None else torch.ones_like(eye)
        joint = _check_mask(eye if joint is None else joint, "joint", matrix, may_be_empty=allow_no_joint)
        marginal = _check_mask(marginal, "marginal", matrix)
        if log_weights is not None:
            log_weights = _check_log_weights(log_weights, marginal, matrix)
        joint_rows, joint_columns = joint.nonzero(as_tuple=True)
        row_mask = marginal | joint
        return cls(
            matrix[joint_rows, joint_columns],
            matrix,
            joint_columns=joint_columns,
            num_marginal=int(marginal.sum()),
            marginal_mask=marginal,
            rows=_Rows(joint_rows, mask=row_mask, count=row_mask.sum(dim=1)),
            log_weights=log_weights,
            y=y,
        )

    @classmethod
    def from_samples(
        cls,
        joint: Tensor,
        marginal: Tensor,
        *,
        joint_columns: Tensor | None = None,
        marginal_columns: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Scores:
        """Take scores of two lists of pairs, without rows (so InfoNCE cannot use them).

        Args:
            joint: (J,) scores of joint pairs.
            marginal: (K,) scores of marginal pairs.
            joint_columns: (J,) rows of ``y`` that the joint pairs use; 0..J-1 by default.
            marginal_columns: (K,) rows of ``y`` that the marginal pairs use; J..J+K-1 by default.
            y: (M, D) candidate representations, for a learned baseline.

        Raises:
            ValueError: A list is empty or not one-dimensional.

        Example:
            >>> Scores.from_samples(torch.ones(2), torch.zeros(5)).num_marginal
            5
        """
        _check_scores(joint, "joint", ndim=1)
        _check_scores(marginal, "marginal", ndim=1)
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
        return cls(
            upcast(joint),
            upcast(marginal),
            joint_columns=joint_columns,
            num_marginal=marginal.numel(),
            marginal_columns=marginal_columns,
            y=y,
        )

    @property
    def num_candidates(self) -> int | None:
        """How many pairs the longest row holds, the N in InfoNCE's ceiling log N.

        None where there are no rows, or where the candidates have unequal weights.
        """
        if self._rows is None or self._log_weights is not None:
            return None
        return self._rows.count if isinstance(self._rows.count, int) else int(self._rows.count.max())

    @property
    def joint_rows(self) -> Tensor:
        """(J,) the row of each joint pair; ValueError where there are no rows."""
        return self._require_rows().joint

    def marginal_values(self) -> Tensor:
        """(K,) scores of all marginal pairs, for histograms and tests; weights, and what a bound uses, are below."""
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
        scores = self._marginal if clip is None else self._marginal.clamp(-clip, clip)
        if offset is not None:
            scores = scores - (offset if self._marginal_columns is None else offset[self._marginal_columns])
        if power != 1.0:
            scores = power * scores
        if self._log_weights is not None:  # They sum to 1 in each row, so the rows are what is counted.
            return log_mean_exp(scores, count=len(scores), log_weights=self._log_weights)
        return log_mean_exp(scores, self._marginal_mask, count=self.num_marginal)

    def row_log_mean_exp(self) -> Tensor:
        """(N,) log of the mean of exp(T) over the marginal and joint pairs of each row, nats."""
        rows = self._require_rows()
        if self._log_weights is not None:
            return log_mean_exp(self._marginal, count=1, dim=1, log_weights=self._log_weights)
        return log_mean_exp(self._marginal, rows.mask, count=rows.count, dim=1)

    def mean_softplus(self) -> Tensor:
        """E_Q[log(1 + exp(T))] over the marginal pairs: a scalar, nats."""
        values = softplus(self._marginal)
        if self._log_weights is not None:
            return (values * self._log_weights.exp()).sum() / len(values)
        if self._marginal_mask is not None:
            values = values.masked_fill(~self._marginal_mask, 0.0)
        return values.sum() / self.num_marginal

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
        return mean_or_zero(scores)

    def joint_mean_softplus(self) -> Tensor:
        """E_P[log(1 + exp(-T))] over the joint pairs: a scalar, nats; 0 where there are none."""
        return mean_or_zero(softplus(-self.joint))

    def _require_rows(self) -> _Rows:
        if self._rows is None:
            raise ValueError(
                "Got two lists of pairs, but a bound over rows (InfoNCE) compares each joint pair with the marginal "
                "pairs of the same x. Use a pairing that scores all pairs, such as pairs.AllPairs()."
            )
        return self._rows


def _check_scores(scores: Tensor, name: str, ndim: int) -> None:
    if scores.ndim != ndim or not scores.is_floating_point() or scores.numel() == 0:
        raise ValueError(
            f"Got `{name}` of shape {tuple(scores.shape)} and type {scores.dtype}: "
            f"scores are floating-point numbers in {ndim} dimension{'s' * (ndim > 1)}, at least one of them."
        )


def _check_mask(mask: Tensor, name: str, matrix: Tensor, may_be_empty: bool = False) -> Tensor:
    if mask.dtype != torch.bool or mask.shape != matrix.shape:
        raise ValueError(
            f"Got a `{name}` mask of shape {tuple(mask.shape)} and type {mask.dtype} for scores of shape "
            f"{tuple(matrix.shape)}: it must be boolean and of the same shape."
        )
    if not (may_be_empty or mask.any()):
        raise ValueError(f"Got a `{name}` mask without a single True: a bound needs at least one {name} pair.")
    return mask


def _check_log_weights(log_weights: Tensor, marginal: Tensor, matrix: Tensor) -> Tensor | None:
    """The weights in the matrix's type; None where all are equal, which every reduction takes by default."""
    if log_weights.shape != matrix.shape[1:] or not log_weights.is_floating_point():
        raise ValueError(
            f"Got log_weights of shape {tuple(log_weights.shape)} and type {log_weights.dtype} for scores of shape "
            f"{tuple(matrix.shape)}: there is one floating-point number for each candidate, ({matrix.shape[1]},)."
        )
    total = upcast(log_weights).exp().sum()
    if not abs(total - 1) < 1e-3:
        raise ValueError(f"Got log_weights whose weights sum to {total:g}: they are a law of the candidates, sum 1.")
    if not marginal.all():
        raise ValueError(
            "Got log_weights and a `marginal` mask that leaves out pairs: the weights sum to 1 over every row's pairs. "
            "Give the candidates to leave out a log-weight of -inf."
        )
    if (log_weights == log_weights[0]).all():
        return None
    return log_weights.to(matrix.device, matrix.dtype)
