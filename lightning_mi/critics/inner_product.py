"""InnerProductCritic: the inner product of two representations."""

import math
from typing import final

from torch import Tensor
from torch.nn.functional import normalize

from lightning_mi.critics.base import AbstractCritic, check_shapes
from lightning_mi.scores.tiles import ProductTiles
from lightning_mi.utilities.checks import check_number


@final
class InnerProductCritic(AbstractCritic):
    r"""Inner product :math:`T(x, y) = x \cdot y`, without parameters, for representations in one space.

    Source: Choi and Lee 2022 (plain); Chen et al. 2020 (normalized, with a temperature).

    Args:
        normalize: Scale x and y to unit length first, so that scores are cosines.
        temperature: Divides the scores.
        scaled: Divide the scores by sqrt(D) as well, which keeps their variance the same at any width D.

    Raises:
        TypeError: The temperature is not a number.
        ValueError: The temperature is not positive; in use, x and y differ in width.

    Example:
        >>> import torch
        >>> x = torch.tensor([[3.0, 4.0]])
        >>> InnerProductCritic().paired(x, x), InnerProductCritic(normalize=True, temperature=0.5).paired(x, x)
        (tensor([25.]), tensor([2.]))
    """

    def __init__(self, *, normalize: bool = False, temperature: float = 1.0, scaled: bool = False) -> None:
        super().__init__()
        check_number("temperature", temperature, "which divides the scores")
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"Got temperature={temperature}: it divides the scores. Choose a positive number.")
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

    def tiles(self, x: Tensor, y: Tensor) -> ProductTiles:
        """Inner products of x and y, normalized and scaled."""
        return ProductTiles(*self._prepare(x, y))

    def _prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        check_shapes(x, y, None, None)
        if self.normalize:
            x, y = normalize(x, dim=-1), normalize(y, dim=-1)
        factor = 1 / (self.temperature * (math.sqrt(x.shape[-1]) if self.scaled else 1.0))
        return (x if factor == 1.0 else x * factor), y
