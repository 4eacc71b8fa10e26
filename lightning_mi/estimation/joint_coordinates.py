"""Coordinates of a variable that is two: those of both, side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Columns(NamedTuple):
    """Coordinates of the samples of a variable.

    Attributes:
        values: (n, C).
        num_ranks: The number D of Gaussian ranks. The first D columns are their products with the radius, the next D
            are the ranks, and features follow.
        one_hot: Whether the columns are the labels of a discrete variable.
    """

    values: Tensor
    num_ranks: int
    one_hot: bool = False


def join(parts: Sequence[Columns]) -> Columns:
    """Coordinates of several variables as one: the products of all come first, then all ranks, then all features.

    Example:
        >>> number = Columns(torch.tensor([[1.0, 2.0, 10.0]]), num_ranks=1)
        >>> label = Columns(torch.tensor([[0.0, 1.0]]), num_ranks=0)
        >>> join([label, number])
        Columns(values=tensor([[ 1.,  2.,  0.,  1., 10.]]), num_ranks=1, one_hot=False)
    """
    products = [values[:, :num_ranks] for values, num_ranks, _ in parts]
    ranks = [values[:, num_ranks : 2 * num_ranks] for values, num_ranks, _ in parts]
    features = [values[:, 2 * num_ranks :] for values, num_ranks, _ in parts]
    return Columns(torch.cat([*products, *ranks, *features], dim=1), sum(part.num_ranks for part in parts))
