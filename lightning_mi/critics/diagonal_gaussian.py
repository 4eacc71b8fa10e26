"""DiagonalGaussian: densities of vectors with independent normal coordinates, in closed form."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG_TWO_PI = math.log(2 * math.pi)


class DiagonalGaussian(NamedTuple):
    """N normal densities of D independent coordinates.

    Attributes:
        mean: (N, D).
        log_variance: (N, D), or a shape that broadcasts to it.

    Example:
        >>> density = DiagonalGaussian(torch.zeros(1, 2), torch.zeros(1, 2))
        >>> density.log_prob(torch.zeros(1, 2))  # -log 2 pi
        tensor([-1.8379])
        >>> density.kl(DiagonalGaussian(torch.ones(1, 2), torch.zeros(1, 2)))
        tensor([1.])
    """

    mean: Tensor
    log_variance: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        """(N,) the log-density at each row of ``value`` (N, D), nats."""
        squares = (value - self.mean).square() * (-self.log_variance).exp()
        return -0.5 * (squares + self.log_variance + LOG_TWO_PI).sum(dim=1)

    def sample(self) -> Tensor:
        """(N, D) a draw from each density, differentiable in mean and log-variance (reparameterized)."""
        return self.mean + torch.randn_like(self.mean) * (0.5 * self.log_variance).exp()

    def kl(self, other: "DiagonalGaussian") -> Tensor:
        r"""(N,) the divergence :math:`KL(self \| other)` of each density from one of ``other``, nats, at least 0."""
        difference = self.log_variance - other.log_variance
        squares = (self.mean - other.mean).square() * (-other.log_variance).exp()
        # expm1: exp(d) - 1 - d cancels for nearly equal variances.
        return 0.5 * (squares + torch.expm1(difference) - difference).sum(dim=1)
