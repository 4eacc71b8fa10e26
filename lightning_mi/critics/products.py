"""Critics that are products of x and y: bilinear, and the inner product of representations as they are."""

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_mi.checks import check_number, check_whole
from lightning_mi.critics.base import AbstractCritic, check_shapes
from lightning_mi.tiles import Products


@final
class BilinearCritic(AbstractCritic):
    """T(x, y) = x^T W y, with W drawn so that standard normal x and y give scores of unit variance.

    Source: van den Oord et al. 2018.

    Args:
        x_dim: Dx.
        y_dim: Dy.

    Raises:
        ValueError: x or y has another shape.

    Example:
        >>> BilinearCritic(3, 2).pairwise(torch.zeros(4, 3), torch.zeros(5, 2)).shape
        torch.Size([4, 5])
    """

    def __init__(self, x_dim: int, y_dim: int) -> None:
        super().__init__()
        check_whole("x_dim", x_dim, 1)
        check_whole("y_dim", y_dim, 1)
        self.weight = nn.Parameter(torch.randn(x_dim, y_dim) / math.sqrt(x_dim * y_dim))

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        return (self._project(x, y) * y).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self.tiles(x, y).matrix()

    def tiles(self, x: Tensor, y: Tensor) -> Products:
        """X W and y."""
        return Products(self._project(x, y), y)

    def _project(self, x: Tensor, y: Tensor) -> Tensor:
        x_dim, y_dim = self.weight.shape
        check_shapes(x, y, x_dim, y_dim, self.weight)
        return x @ self.weight


@final
class InnerProductCritic(AbstractCritic):
    """T(x, y) = x . y, for representations that an encoder has already made comparable. It has no parameters.

    Source: Choi and Lee 2022 (plain); Chen et al. 2020 (normalized, with a temperature).

    Args:
        normalize: Scale x and y to unit length first, so that scores are cosines.
        temperature: Divides the scores.
        scaled: Divide by sqrt(D) too, which keeps scores of unit variance at any width D.

    Raises:
        ValueError: The temperature is not positive, or x and y differ in width.

    Example:
        >>> x = torch.tensor([[3.0, 4.0]])
        >>> InnerProductCritic().paired(x, x), InnerProductCritic(normalize=True, temperature=0.5).paired(x, x)
        (tensor([25.]), tensor([2.]))
    """

    def __init__(self, normalize: bool = False, temperature: float = 1.0, scaled: bool = False) -> None:
        super().__init__()
        check_number("temperature", temperature, "which divides the scores")
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"Got temperature={temperature}: it divides the scores, so it is a positive number.")
        self.normalize = normalize
        self.temperature = temperature
        self.scaled = scaled

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        x, y = self._prepare(x, y)
        return (x * y).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self.tiles(x, y).matrix()

    def tiles(self, x: Tensor, y: Tensor) -> Products:
        """X and y, as they are multiplied."""
        return Products(*self._prepare(x, y))

    def _prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        check_shapes(x, y, None, None)
        if self.normalize:
            x, y = normalize(x, dim=-1), normalize(y, dim=-1)
        factor = 1 / (self.temperature * (math.sqrt(x.shape[-1]) if self.scaled else 1.0))
        return (x if factor == 1.0 else x * factor), y
