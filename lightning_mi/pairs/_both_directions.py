"""Scores of x against every y, then of y against every x."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_mi.critics import AbstractCritic
from lightning_mi.scores.stacked_tiles import StackedTiles
from lightning_mi.scores.tiles import AbstractTiles


def check_has_directions(critic: AbstractCritic, pairing: str) -> None:
    """Check that a critic can be compared over x and over y.

    Raises:
        ValueError: The critic gives log-densities q(y | x), which are compared over x alone.
    """
    if critic.is_log_density:
        raise ValueError(
            f"Got {type(critic).__name__} for {pairing}: log-densities q(y | x) are normalized over y, so they have "
            "one direction. Use pairs.AllPairs(), or another critic."
        )


def score_both_directions(
    critic: AbstractCritic, views: Sequence[Tensor], candidates: Sequence[Tensor] | None
) -> Tensor | AbstractTiles:
    """(N + K, M) scores: the rows T(x_i, .) over the candidates y, then the rows T(., y_j) over the candidates x.

    Rows of different lengths are padded with zeros, which the caller excludes.

    Args:
        critic: T(x, y).
        views: x (N, Dx) and y (K, Dy) of this rank.
        candidates: x and y of all ranks; None for the views themselves.
    """
    (x, y), (all_x, all_y) = views, candidates or views
    first = critic.tiles(x, all_y)
    if first is not None and len(all_x) == len(all_y):
        other = first if candidates is None else critic.tiles(all_x, y)
        second = None if other is None else other.transpose()
        if second is not None:
            return StackedTiles(first, second, transposed=candidates is None)
    rows = critic.pairwise(x, all_y)
    columns = rows.T if candidates is None else critic.pairwise(all_x, y).T
    if rows.shape[1] != columns.shape[1]:
        width = max(rows.shape[1], columns.shape[1])
        rows, columns = (pad(part, (0, width - part.shape[1])) for part in (rows, columns))
    return torch.cat([rows, columns])
