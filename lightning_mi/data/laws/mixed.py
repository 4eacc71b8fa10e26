"""One discrete and one continuous side: a uniform window of a label, and the zero-inflated Poisson law."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from lightning_mi.data.laws._arguments import check_probability
from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.utilities.checks import check_whole
from lightning_mi.utilities.labels import check_labels


@final
@dataclass(frozen=True)
class DiscreteContinuous(AbstractLaw):
    r"""A uniform label x from 0 to m - 1, and y ~ U(x, x + 2).

    .. math:: I = \ln m - \frac{m - 1}{m} \ln 2

    Samples are x (n,) int64 and y (n, 1). :class:`Swapped` puts the labels last, where
    :class:`~lightning_mi.pairs.EnumeratedLabels` takes them.

    Args:
        num_values: m, at least 2.

    Raises:
        TypeError: If ``num_values`` is not a whole number.
        ValueError: If it is below 2.

    Source: Gao et al. 2017.

    Example:
        >>> DiscreteContinuous(5).true_mi
        1.0549
    """

    num_values: int = 5

    def __post_init__(self) -> None:
        check_whole("num_values", self.num_values, 2)

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats."""
        return math.log(self.num_values) - (self.num_values - 1) / self.num_values * math.log(2)

    @property
    def num_x_labels(self) -> int:
        """The number of values m."""
        return self.num_values

    def describe(self) -> str:
        """One line of plain text."""
        return f"uniform label of {self.num_values}, y uniform from x to x + 2"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randint(self.num_values, (n,), generator=generator)
        noise = 2 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        return x, x.unsqueeze(1) + noise

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        x = check_labels(x, len(x), "DiscreteContinuous", self.num_values)
        y = y.double().squeeze(1)
        # Labels that reach y: floor(y) and the one below, if they exist. Rounding of y moves it to a bound at most.
        top = y.floor().clamp(max=self.num_values - 1)
        bottom = (y.floor() - 1).clamp(min=0, max=self.num_values - 1)
        inside = (y >= x) & (y <= x + 2)
        return torch.where(inside, (self.num_values / (top - bottom + 1)).log(), -math.inf)


@final
@dataclass(frozen=True)
class ZeroInflatedPoisson(AbstractLaw):
    r"""x ~ Exp(1), and y = 0 with probability p, otherwise y ~ Poisson(x).

    Without inflation, :math:`I = 2 \ln 2 - \gamma - \sum_{k \ge 1} 2^{-k} \ln k = 0.3012`. The formula of Gao et al.,
    (1 - p) times this value, is an upper bound for p > 0: it is the MI of an observer who knows which zeros are
    inflated. Here the MI is that of (x, y) alone, by numerical integration over x and summation over y, with an error
    below 1e-10: 0.2298 for p = 0.15, where the formula gives 0.2561.

    Samples are x (n, 1) and y (n, 1); counts are float64.

    Args:
        inflation: p, from 0 to 1.

    Raises:
        TypeError: If ``inflation`` is not a number.
        ValueError: If it is out of range.

    Source: Gao et al. 2017 (law).

    Example:
        >>> ZeroInflatedPoisson(0.0).true_mi, ZeroInflatedPoisson(0.15).true_mi
        (0.3012, 0.2298)
    """

    inflation: float = 0.15

    def __post_init__(self) -> None:
        check_probability("inflation", self.inflation)

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats, with an error below 1e-10."""
        return self._mi

    def describe(self) -> str:
        """One line of plain text."""
        return f"exponential x, y Poisson with mean x, set to 0 with probability {self.inflation:g}"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.empty(n, 1, dtype=torch.float64).exponential_(generator=generator)
        counts = torch.poisson(x, generator=generator)
        inflated = torch.rand(n, 1, generator=generator, dtype=torch.float64) < self.inflation
        return x, torch.where(inflated, 0.0, counts)

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = x.double().squeeze(1), y.double().squeeze(1)
        p = self.inflation
        log_zero = (p + (1 - p) * (-x).exp()).log() - math.log((1 + p) / 2)
        # Poisson(x) averaged over Exp(1) is geometric: 2^-(y + 1). The factor 1 - p cancels.
        log_positive = torch.special.xlogy(y, x) - x - torch.lgamma(y + 1) + (y + 1) * math.log(2)
        return torch.where(y == 0, log_zero, log_positive)

    @cached_property
    def _mi(self) -> float:
        # The integrand has the term x log x at 0, so panels get finer towards 0: 24 nodes each, up to x = 64.
        edges = np.concatenate([[0.0], 2.0 ** np.arange(-20, 7)])
        nodes, weights = np.polynomial.legendre.leggauss(24)
        half = np.diff(edges)[:, None] / 2
        x = torch.from_numpy((edges[:-1, None] + half * (1 + nodes)).reshape(-1, 1))
        weight = torch.from_numpy((half * weights).reshape(-1, 1)) * (-x).exp()
        y = torch.arange(300, dtype=torch.float64).unsqueeze(1)  # 1e-40 of the mass is above, at any x of the panels
        ratio = self._log_ratio_matrix(x, y)
        y = y.T
        conditional = (1 - self.inflation) * (torch.special.xlogy(y, x) - x - torch.lgamma(y + 1)).exp()
        conditional[:, 0] += self.inflation
        return max(0.0, float((weight * conditional * ratio).sum()))
