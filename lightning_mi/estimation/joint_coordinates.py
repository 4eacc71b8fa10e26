"""Coordinates of a variable that is two: those of both, side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Columns(NamedTuple):
    """Coordinates of the samples of a variable.

    Attributes:
        values: (n, C).
        num_ranks: The number of first columns that are Gaussian ranks. As many products of ranks with the radius
            follow, then features.
    """

    values: Tensor
    num_ranks: int


def join(parts: Sequence[Columns]) -> Columns:
    """Coordinates of several variables as one: the ranks of all come first, then all products, then all features.

    Example:
        >>> number = Columns(torch.tensor([[1.0, 2.0, 10.0]]), num_ranks=1)
        >>> label = Columns(torch.tensor([[0.0, 1.0]]), num_ranks=0)
        >>> join([label, number])
        Columns(values=tensor([[ 1.,  2.,  0.,  1., 10.]]), num_ranks=1)
    """
    ranks = [values[:, :num_ranks] for values, num_ranks in parts]
    products = [values[:, num_ranks : 2 * num_ranks] for values, num_ranks in parts]
    features = [values[:, 2 * num_ranks :] for values, num_ranks in parts]
    return Columns(torch.cat([*ranks, *products, *features], dim=1), sum(num_ranks for _, num_ranks in parts))
