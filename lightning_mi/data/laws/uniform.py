"""Uniform noise on a uniform variable."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.utilities.checks import check_positive


@final
@dataclass(frozen=True)
class AdditiveUniform(AbstractLaw):
    r"""x ~ U(0, 1) and y = x + U(-e, e).

    .. math:: I = e - \ln 2e \text{ for } e \le \tfrac{1}{2}, \quad I = \tfrac{1}{4e} \text{ otherwise}

    Samples are x (n, 1) and y (n, 1). The support of :meth:`log_ratio` is wider by the rounding error of
    y's dtype.

    Args:
        noise: e, half the width of the noise, positive.

    Raises:
        TypeError: If ``noise`` is not a number.
        ValueError: If it is not positive.

    Source: Czyz et al. 2023.

    Example:
        >>> AdditiveUniform(0.1).true_mi, AdditiveUniform(0.75).true_mi
        (1.7094, 0.3333)
    """

    noise: float = 0.1

    def __post_init__(self) -> None:
        check_positive("noise", self.noise, "half the width of the noise")

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats."""
        return self.noise - math.log(2 * self.noise) if self.noise <= 0.5 else 0.25 / self.noise

    def describe(self) -> str:
        """One line of plain text."""
        return f"uniform x, y = x + uniform noise of half-width {self.noise:g}"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, noise = torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
        return x, x + self.noise * (2 * noise - 1)

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        rounding = torch.finfo(y.dtype).eps * (1 + self.noise)
        x, y = x.double().squeeze(1), y.double().squeeze(1)
        # The x in [0, 1] that reach y. The density of y is the length of this interval over 2 e.
        length = (y + self.noise).clamp(max=1) - (y - self.noise).clamp(min=0)
        inside = ((y - x).abs() <= self.noise + rounding) & (x >= 0) & (x <= 1)
        return torch.where(inside, -length.clamp(min=rounding).log(), -math.inf)
