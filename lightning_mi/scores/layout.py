"""Where the pairs lie in a matrix of scores, and what scores, masks and weights must be like."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mi.scores.dense import AbstractMarginals, DenseMarginals, all_but
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.tiled import TiledMarginals
from lightning_mi.scores.tiles import AbstractTiles, tile_rows
from lightning_mi.utilities.numerics import upcast


@dataclass(frozen=True)
class Layout:
    """The joint and the marginal pairs of a batch."""

    joint: Tensor  # (J,) the scores of the joint pairs
    joint_columns: Tensor  # (J,) the candidate of each
    marginals: AbstractMarginals
    num_marginal: int
    num_rows: int
    joint_rows: Tensor | None = None  # (J,) the row of each joint pair; None without rows
    row_count: Tensor | int = 0  # (N,) the marginal and joint pairs of each row; an int if it is the same in every row
    log_weights: Tensor | None = None  # (M,) of the candidates in a row; equal by default


def lay_out_columns(scores: Tensor | AbstractTiles, columns: JointColumns, tile_bytes: float | None = None) -> Layout:
    """One joint pair in each row of (N, M) scores, which are there or are made in tiles.

    Raises:
        ValueError: The scores are not floating-point numbers, or the bytes of a tile not positive.
    """
    rows = tile_rows(scores, tile_bytes) if isinstance(scores, AbstractTiles) else None
    num_rows = len(columns.joint)
    in_order = columns.span == slice(0, num_rows)  # and so the rows are what the columns are
    joint_rows = columns.joint if in_order else torch.arange(num_rows, device=columns.joint.device)
    row_count = columns.row_count(scores.shape[1])
    marginals: AbstractMarginals
    if isinstance(scores, AbstractTiles) and rows is not None:
        joint = scores.at(slice(0, num_rows), columns.joint if columns.span is None else columns.span)
        marginals = TiledMarginals(scores, columns, joint, rows)
    else:
        matrix = scores.matrix() if isinstance(scores, AbstractTiles) else scores
        check_scores(matrix, "matrix", ndim=2, may_be_empty=True)
        matrix = upcast(matrix)
        joint = matrix[joint_rows, columns.joint] if columns.span is None else matrix.diagonal(columns.span.start)
        in_row = None if columns.excluded is None else all_but(matrix, columns.excluded.unsqueeze(1))
        marginals = DenseMarginals(matrix, non_marginal=columns.non_marginal, row_mask=in_row, row_count=row_count)
    return Layout(
        joint,
        columns.joint,
        marginals,
        num_marginal=columns.num_marginal(scores.shape[1]),
        num_rows=num_rows,
        joint_rows=joint_rows,
        row_count=row_count,
    )


def lay_out_masks(
    matrix: Tensor, joint: Tensor | None, marginal: Tensor | None, log_weights: Tensor | None, diagonal: int
) -> Layout:
    """Pairs as masks give them; by default the joint pairs are the diagonal, the marginal ones all others.

    With weights the marginal pairs are all pairs by default.

    Raises:
        ValueError: A mask or the weights do not fit the matrix, or the diagonal does not meet each row.
    """
    joint = _check_mask(_diagonal_mask(matrix, diagonal) if joint is None else joint, "joint", matrix)
    if marginal is None:
        marginal = ~joint if log_weights is None else torch.ones_like(joint)
    marginal = _check_mask(marginal, "marginal", matrix)
    if log_weights is not None:
        log_weights = _check_log_weights(log_weights, marginal, matrix)
    joint_rows, joint_columns = joint.nonzero(as_tuple=True)
    in_row = marginal | joint
    row_count = in_row.sum(dim=1)
    return Layout(
        matrix[joint_rows, joint_columns],
        joint_columns,
        DenseMarginals(matrix, marginal, log_weights=log_weights, row_mask=in_row, row_count=row_count),
        num_marginal=int(marginal.sum()),
        num_rows=len(matrix),
        joint_rows=joint_rows,
        row_count=row_count,
        log_weights=log_weights,
    )


def lay_out_samples(
    joint: Tensor, marginal: Tensor, joint_columns: Tensor | None, marginal_columns: Tensor | None
) -> Layout:
    """Two lists of pairs.

    Raises:
        ValueError: The candidates do not fit the scores.
    """
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
    marginals = DenseMarginals(upcast(marginal), columns=marginal_columns)
    return Layout(upcast(joint), joint_columns, marginals, num_marginal=len(marginal), num_rows=len(marginal))


def check_square(matrix: Tensor, diagonal: int, may_be_wide: bool) -> None:
    """Raise a ValueError unless a diagonal that begins at a column has an entry in every row, and all else is more.

    Without ``may_be_wide`` the matrix is square.
    """
    num_rows, num_columns = matrix.shape
    fits = 0 <= diagonal <= num_columns - num_rows and (may_be_wide or num_rows == num_columns)
    if not fits or num_columns < 2:
        raise ValueError(
            f"Got scores of shape {tuple(matrix.shape)} and diagonal={diagonal}: without masks the diagonal holds "
            "the joint pairs and the rest the marginal pairs, which takes a square matrix of at least 2 x 2. "
            "Use a batch of two or more samples, or pass `joint` and `marginal`."
        )


def check_default_columns(
    y: Tensor, num_joint: int, num_marginal: int, joint_columns: Tensor | None, marginal_columns: Tensor | None
) -> None:
    """Raise a ValueError unless the candidates are those that pairs use by default, where columns are not given."""
    if marginal_columns is None:
        fits = len(y) == num_joint + num_marginal
    else:
        fits = joint_columns is not None or len(y) >= num_joint
    if not fits:
        raise ValueError(
            f"Got {len(y)} candidates `y` for {num_joint} joint and {num_marginal} marginal scores: by default `y` has "
            "one row for each pair, those of the joint pairs first. Give `joint_columns` and `marginal_columns`, the "
            "row that each pair uses."
        )


def _diagonal_mask(matrix: Tensor, diagonal: int) -> Tensor:
    if not 0 <= diagonal <= matrix.shape[1] - len(matrix):
        raise ValueError(
            f"Got scores of shape {tuple(matrix.shape)} and diagonal={diagonal}: without a `joint` mask the joint pair "
            "of row i is in column diagonal + i, which each row must have. Pass `joint`."
        )
    mask = torch.zeros(matrix.shape, dtype=torch.bool, device=matrix.device)
    mask.diagonal(diagonal).fill_(True)
    return mask


def check_scores(scores: Tensor, name: str, ndim: int, may_be_empty: bool) -> None:
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
