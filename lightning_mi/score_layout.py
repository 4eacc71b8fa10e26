"""Where the pairs lie in a matrix of scores, and what scores, masks and weights must be like."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mi.numerics import upcast


@dataclass(frozen=True)
class Columns:
    """One joint pair in each row; all other columns but one that may be left out are marginal pairs."""

    joint: Tensor  # (N,) the column of each row's joint pair
    left_out: Tensor | None = None  # (N,) a column of each row that is no pair, as of a sample with itself

    @property
    def unmarked(self) -> Tensor:
        """(N, 1 or 2) the columns of each row that are not marginal pairs."""
        return self.joint.unsqueeze(1) if self.left_out is None else torch.stack([self.joint, self.left_out], dim=1)

    @classmethod
    def of_diagonal(cls, x: Tensor, start: int = 0) -> Columns:
        """Those of the rows of ``x`` in order, from a column on."""
        return cls(torch.arange(start, start + len(x), device=x.device))

    def row_count(self, num_columns: int) -> int:
        """How many pairs there are in a row."""
        return num_columns - (self.left_out is not None)

    def num_marginal(self, num_columns: int) -> int:
        """How many marginal pairs there are in all rows."""
        return len(self.joint) * (self.row_count(num_columns) - 1)


@dataclass(frozen=True)
class Layout:
    """Which entries of an (N, M) matrix are pairs, one row an x."""

    joint: Tensor  # (J,) the scores of the joint pairs
    joint_rows: Tensor  # (J,)
    joint_columns: Tensor  # (J,)
    marginal: Tensor  # (N, M)
    num_marginal: int
    row_mask: Tensor | None  # (N, M) the marginal pairs and the joint pairs of each row; None if that is every entry
    row_count: Tensor | int  # (N,) how many that is; an int if it is the same in every row
    log_weights: Tensor | None = None  # (M,) of the candidates; None if they are equal


def check_square(matrix: Tensor, diagonal: int, may_be_wide: bool) -> None:
    """Raise a ValueError unless a diagonal that begins at a column has an entry in every row, and all else is more.

    Without ``may_be_wide`` the matrix is square.
    """
    num_rows, num_columns = matrix.shape
    fits = num_rows <= num_columns - diagonal if may_be_wide else num_rows == num_columns
    if not fits or num_columns < 2:
        raise ValueError(
            f"Got scores of shape {tuple(matrix.shape)}: without masks the diagonal holds the joint pairs and "
            "the rest the marginal pairs, which takes a square matrix of at least 2 x 2. "
            "Use a batch of two or more samples, or pass `joint` and `marginal`."
        )


def column_layout(matrix: Tensor, columns: Columns) -> Layout:
    """One joint pair in each row."""
    num_rows, num_columns = matrix.shape
    everything = torch.ones(matrix.shape, dtype=torch.bool, device=matrix.device)
    left_out = columns.left_out
    return Layout(
        matrix.gather(1, columns.joint.unsqueeze(1)).squeeze(1),
        joint_rows=torch.arange(num_rows, device=matrix.device),
        joint_columns=columns.joint,
        marginal=everything.scatter(1, columns.unmarked, False),
        num_marginal=columns.num_marginal(num_columns),
        row_mask=None if left_out is None else everything.scatter_(1, left_out.unsqueeze(1), False),
        row_count=columns.row_count(num_columns),
    )


def mask_layout(
    matrix: Tensor, joint: Tensor | None, marginal: Tensor | None, log_weights: Tensor | None, diagonal: int
) -> Layout:
    """Pairs where masks say so; a mask that is not given is the diagonal, or all but that, or all with weights.

    Raises:
        ValueError: A mask or the weights do not fit the matrix.
    """
    on_diagonal = _diagonal_mask(matrix, diagonal)
    if marginal is None:
        marginal = ~on_diagonal if log_weights is None else torch.ones_like(on_diagonal)
    joint = _check_mask(on_diagonal if joint is None else joint, "joint", matrix)
    marginal = _check_mask(marginal, "marginal", matrix)
    if log_weights is not None:
        log_weights = _check_log_weights(log_weights, marginal, matrix)
    joint_rows, joint_columns = joint.nonzero(as_tuple=True)
    in_row = marginal | joint
    return Layout(
        matrix[joint_rows, joint_columns],
        joint_rows=joint_rows,
        joint_columns=joint_columns,
        marginal=marginal,
        num_marginal=int(marginal.sum()),
        row_mask=in_row,
        row_count=in_row.sum(dim=1),
        log_weights=log_weights,
    )


def _diagonal_mask(matrix: Tensor, diagonal: int) -> Tensor:
    mask = torch.zeros(matrix.shape, dtype=torch.bool, device=matrix.device)
    mask.diagonal(diagonal).fill_(True)
    return mask


def check_scores(scores: Tensor, name: str, ndim: int, may_be_empty: bool = False) -> None:
    """Raise a ValueError unless these are floating-point numbers in so many dimensions."""
    empty = scores.numel() == 0 and not may_be_empty
    if scores.ndim != ndim or not scores.is_floating_point() or empty:
        raise ValueError(
            f"Got `{name}` of shape {tuple(scores.shape)} and type {scores.dtype}: "
            f"scores are floating-point numbers in {ndim} dimension{'s' * (ndim > 1)}, at least one of them."
        )


def _check_mask(mask: Tensor, name: str, matrix: Tensor) -> Tensor:
    """Raise a ValueError unless this is a boolean for each entry of the matrix."""
    if mask.dtype != torch.bool or mask.shape != matrix.shape:
        raise ValueError(
            f"Got a `{name}` mask of shape {tuple(mask.shape)} and type {mask.dtype} for scores of shape "
            f"{tuple(matrix.shape)}: it must be boolean and of the same shape."
        )
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
