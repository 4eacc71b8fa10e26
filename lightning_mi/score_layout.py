"""Where the pairs lie in a matrix of scores, and what scores, masks and weights must be like."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mi.numerics import upcast


@dataclass(frozen=True)
class Rows:
    """How the pairs of a score matrix lie in rows, one row an x."""

    joint: Tensor  # (J,) the row of each joint pair
    mask: Tensor | None  # (N, M) the marginal pairs and the joint pairs of each row; None if that is every entry
    count: Tensor | int  # (N,) how many that is; an int if it is the same in every row


@dataclass(frozen=True)
class Layout:
    """Which entries of an (N, M) matrix are pairs."""

    joint: Tensor  # (J,) their scores
    rows: Rows
    joint_columns: Tensor  # (J,)
    marginal: Tensor  # (N, M)
    num_marginal: int
    log_weights: Tensor | None = None  # (M,) of the candidates; None if they are equal


def diagonal_layout(matrix: Tensor, diagonal: int, may_be_wide: bool) -> Layout:
    """Joint pairs on a diagonal, which begins at a column, and all else marginal pairs.

    Raises:
        ValueError: The matrix has not as many columns as rows, or may be wide and has too few.
    """
    num_rows, num_columns = matrix.shape
    fits = num_rows <= num_columns - diagonal if may_be_wide else num_rows == num_columns
    if not fits or num_columns < 2:
        raise ValueError(
            f"Got scores of shape {tuple(matrix.shape)}: without masks the diagonal holds the joint pairs and "
            "the rest the marginal pairs, which takes a square matrix of at least 2 x 2. "
            "Use a batch of two or more samples, or pass `joint` and `marginal`."
        )
    rows = torch.arange(num_rows, device=matrix.device)
    return Layout(
        matrix.diagonal(diagonal),
        Rows(rows, mask=None, count=num_columns),
        joint_columns=diagonal + rows,
        marginal=~_diagonal_mask(matrix, diagonal),
        num_marginal=num_rows * (num_columns - 1),
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
    mask = marginal | joint
    return Layout(
        matrix[joint_rows, joint_columns],
        Rows(joint_rows, mask=mask, count=mask.sum(dim=1)),
        joint_columns=joint_columns,
        marginal=marginal,
        num_marginal=int(marginal.sum()),
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
