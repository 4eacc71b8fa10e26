"""Lay out the pairs of a matrix, of tiles, of masks, or of two lists of scores."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mi.scores.checks import (
    check_candidates,
    check_columns,
    check_default_columns,
    check_joint_weights,
    check_log_weights,
    check_mask,
    check_one_placement,
    check_scores,
    check_square,
)
from lightning_mi.scores.dense import AbstractMarginals, DenseMarginals, all_but
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.layout import Layout
from lightning_mi.scores.ring import RingTiles
from lightning_mi.scores.tile_reductions import TilePass
from lightning_mi.scores.tiled import TiledMarginals
from lightning_mi.scores.tiles import AbstractTiles, tile_rows
from lightning_mi.utilities.distributed import world_size
from lightning_mi.utilities.numerics import upcast


def lay_out_matrix(
    matrix: Tensor,
    joint: Tensor | None,
    marginal: Tensor | None,
    log_weights: Tensor | None,
    diagonal: int,
    pooled: bool | GlobalCounts = False,
    allow_no_marginal: bool = False,
    separate_joint: bool = False,
) -> Layout:
    """Pairs of a matrix, from a diagonal or from masks; arguments and errors as in ``Scores.from_matrix``."""
    check_scores(matrix, "matrix", ndim=2, may_be_empty=_is_sharded(pooled))
    check_one_placement(joint, diagonal)
    if joint is None and marginal is None and log_weights is None:
        check_square(matrix, diagonal, _is_sharded(pooled), allow_no_marginal)
        return lay_out_columns(matrix, JointColumns.of_diagonal(matrix, diagonal), pooled=pooled)
    return lay_out_masks(upcast(matrix), joint, marginal, log_weights, diagonal, separate_joint)


def lay_out_columns(
    scores: Tensor | AbstractTiles | RingTiles,
    columns: JointColumns,
    tile_bytes: float | None = None,
    pooled: bool | GlobalCounts = False,
    y: Tensor | None = None,
) -> Layout:
    """One joint pair in each row of (N, M) scores, dense, in tiles or in a ring; candidates ``y`` only to be checked.

    Raises:
        ValueError: The scores are not floating-point numbers in two dimensions, ``tile_bytes`` is not positive, or
            there is not one candidate for each column that this rank holds.
    """
    check_candidates(y, (scores.tiles if isinstance(scores, RingTiles) else scores).shape[-1])
    if isinstance(scores, Tensor):
        check_scores(scores, "matrix", ndim=2, may_be_empty=_is_sharded(pooled))
    num_rows, num_columns = len(columns.joint), scores.shape[1]
    joint_rows = torch.arange(num_rows, device=columns.joint.device)
    row_count = columns.row_count(num_columns)
    rows_per_tile = tile_rows(scores, tile_bytes) if isinstance(scores, AbstractTiles) else None
    marginals: AbstractMarginals
    if isinstance(scores, RingTiles):
        joint = scores.tiles.at(slice(None), columns.index)
        ring = scores.first_pass(columns.non_marginal, joint.detach(), tile_bytes)
        marginals = TiledMarginals(ring, joint, row_count)
    elif isinstance(scores, AbstractTiles) and rows_per_tile is not None:
        joint = scores.at(slice(None), columns.index)
        tile_pass = TilePass(scores, columns.non_marginal, joint.detach(), rows_per_tile)
        marginals = TiledMarginals(tile_pass, joint, row_count)
    else:
        matrix = scores.matrix() if isinstance(scores, AbstractTiles) else scores
        check_scores(matrix, "matrix", ndim=2, may_be_empty=True)  # a critic may give integers
        matrix = upcast(matrix)
        joint = matrix.gather(1, columns.joint.unsqueeze(1)).squeeze(1)
        row_mask = None if columns.excluded is None else all_but(matrix, columns.non_marginal[:, 1:])
        marginals = DenseMarginals(matrix, non_marginal=columns.non_marginal, row_mask=row_mask, row_count=row_count)
    return Layout(
        joint,
        columns.joint,
        marginals,
        num_marginal=columns.num_marginal(num_columns),
        num_rows=num_rows,
        joint_rows=joint_rows,
        row_count=row_count,
    )


def lay_out_masks(
    matrix: Tensor,
    joint: Tensor | None,
    marginal: Tensor | None,
    log_weights: Tensor | None,
    diagonal: int,
    separate_joint: bool = False,
) -> Layout:
    """Pairs from masks. By default the diagonal holds the joint pairs, and all others are marginal pairs.

    With ``log_weights`` all pairs are marginal pairs by default. Floating-point ``joint`` holds weights of joint pairs.

    Raises:
        ValueError: A mask or the weights do not fit the matrix, or the diagonal has no entry in some row.
    """
    joint_weights = None
    if joint is not None and joint.is_floating_point():
        joint_weights, joint = check_joint_weights(joint, matrix), joint > 0
    joint = check_mask(_diagonal_mask(matrix, diagonal) if joint is None else joint, "joint", matrix)
    if marginal is None:
        marginal = ~joint if log_weights is None else torch.ones_like(joint)
    marginal = check_mask(marginal, "marginal", matrix)
    if log_weights is not None:
        log_weights = check_log_weights(log_weights, marginal, matrix)
    joint_rows, joint_columns = joint.nonzero(as_tuple=True)
    row_mask = marginal | joint
    row_count = row_mask.sum(dim=1)
    return Layout(
        matrix[joint_rows, joint_columns],
        joint_columns,
        DenseMarginals(matrix, marginal, log_weights=log_weights, row_mask=row_mask, row_count=row_count),
        num_marginal=int(marginal.sum()),
        num_rows=len(matrix),
        joint_rows=joint_rows,
        row_count=marginal.sum(dim=1) + 1 if separate_joint else row_count,
        log_weights=log_weights,
        has_marginal=marginal.any(dim=1),
        joint_weights=None if joint_weights is None else joint_weights[joint_rows, joint_columns],
        separate_joint=separate_joint,
    )


def lay_out_samples(
    joint: Tensor,
    marginal: Tensor,
    joint_columns: Tensor | None = None,
    marginal_columns: Tensor | None = None,
    y: Tensor | None = None,
    pooled: bool | GlobalCounts = False,
    allow_no_marginal: bool = False,
) -> Layout:
    """Two lists of pairs, without rows; arguments as in ``Scores.from_samples``.

    Raises:
        ValueError: A list is empty or not one-dimensional, or the columns do not fit the scores.
    """
    check_scores(joint, "joint", ndim=1, may_be_empty=_is_sharded(pooled))
    check_scores(marginal, "marginal", ndim=1, may_be_empty=_is_sharded(pooled) or allow_no_marginal)
    if y is not None:
        check_default_columns(y, len(joint), len(marginal), joint_columns, marginal_columns)
    if joint_columns is None:
        joint_columns = torch.arange(joint.numel(), device=joint.device)
    if marginal_columns is None:
        marginal_columns = joint.numel() + torch.arange(marginal.numel(), device=joint.device)
    check_columns("joint", joint_columns, joint)
    check_columns("marginal", marginal_columns, marginal)
    marginals = DenseMarginals(upcast(marginal), columns=marginal_columns)
    return Layout(upcast(joint), joint_columns, marginals, num_marginal=len(marginal), num_rows=len(marginal))


def _diagonal_mask(matrix: Tensor, diagonal: int) -> Tensor:
    if not 0 <= diagonal <= matrix.shape[1] - len(matrix):
        raise ValueError(
            f"Got scores of shape {tuple(matrix.shape)} and diagonal={diagonal}: without a `joint` mask the joint pair "
            "of row i is in column diagonal + i, which each row must have. Pass `joint`."
        )
    mask = torch.zeros(matrix.shape, dtype=torch.bool, device=matrix.device)
    mask.diagonal(diagonal).fill_(True)
    return mask


def _is_sharded(pooled: bool | GlobalCounts) -> bool:
    return bool(pooled) and world_size() > 1
