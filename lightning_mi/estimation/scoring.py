"""Scores of all pairs, in memory that does not grow with the critic."""

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic

_ROWS = 128


def pairwise(critic: AbstractCritic, x: Tensor, y: Tensor) -> Tensor:
    """(N, M) scores, some rows at a time: a joint critic has activations for each pair."""
    return torch.cat([critic.pairwise(rows, y) for rows in torch.split(x, _ROWS)])
