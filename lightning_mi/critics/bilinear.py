"""BilinearCritic: x^T W y."""

import math
from typing import final

import torch
from torch import Tensor, nn

from lightning_mi.critics.base import AbstractCritic, check_shapes, check_widths
from lightning_mi.scores.tiles import ProductTiles


@final
class BilinearCritic(AbstractCritic):
    r"""Bilinear form :math:`T(x, y) = x^\top W y`.

    W is initialized so that standard normal x and y give scores of unit variance.

    Source: van den Oord et al. 2018.

    Args:
        x_dim: Dx.
        y_dim: Dy.

    Raises:
        TypeError: A width is not a whole number.
        ValueError: A width is below 1; in use, x or y has another shape.

    Example:
        >>> BilinearCritic(3, 2).pairwise(torch.zeros(4, 3), torch.zeros(5, 2)).shape
        torch.Size([4, 5])
    """

    def __init__(self, x_dim: int, y_dim: int) -> None:
        super().__init__()
        check_widths(x_dim=x_dim, y_dim=y_dim)
        self.weight = nn.Parameter(torch.randn(x_dim, y_dim) / math.sqrt(x_dim * y_dim))

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        return (self._project(x, y) * y).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self.tiles(x, y).matrix()

    def tiles(self, x: Tensor, y: Tensor) -> ProductTiles:
        """Inner products of X W and Y."""
        return ProductTiles(self._project(x, y), y)

    def _project(self, x: Tensor, y: Tensor) -> Tensor:
        x_dim, y_dim = self.weight.shape
        check_shapes(x, y, x_dim, y_dim, self.weight)
        return x @ self.weight
