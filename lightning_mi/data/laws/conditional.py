"""Laws of three variables with known conditional mutual information I(x; y | z)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.laws._arguments import check_covariance, matrix_tuple
from lightning_mi.data.laws.abstract_gaussian import AbstractGaussian
from lightning_mi.data.laws.gaussian import Gaussian
from lightning_mi.utilities.checks import check_finite, check_positive, check_whole


class AbstractConditionalLaw(ABC):
    """A joint law of x, y and z with known I(x; y | z). Laws are frozen dataclasses."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw n triples.

        Args:
            n: Number of triples, at least 1.
            generator: CPU generator; equal states give equal samples.

        Returns:
            x (n, Dx), y (n, Dy) and z (n, Dz), float64.
        """

    @property
    @abstractmethod
    def true_conditional_mi(self) -> float:
        """I(x; y | z) in nats."""

    @abstractmethod
    def log_ratio(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        r"""(N,) float64 :math:`\log p(x, y | z) / (p(x | z) p(y | z))` of each triple, nats."""

    @abstractmethod
    def describe(self) -> str:
        """One line of plain text."""


class AbstractConditionalGaussian(AbstractConditionalLaw):
    r"""(x, y, z) ~ N(0, S). Given z, (x, y) is Gaussian with a covariance C that does not depend on z.

    .. math::

        I(x; y | z) = \frac{1}{2} \ln \frac{\det C_x \det C_y}{\det C},
        \quad C = S_{xy} - S_{xy,z} S_z^{-1} S_{z,xy}

    Source: Cover and Thomas 2006, chapter 8.
    """

    @property
    @abstractmethod
    def sides(self) -> tuple[int, int, int]:
        """Dx, Dy and Dz."""

    @abstractmethod
    def covariance_matrix(self) -> Tensor:
        """(Dx + Dy + Dz, Dx + Dy + Dz) float64 covariance S."""

    @property
    def true_conditional_mi(self) -> float:
        """I(x; y | z) in nats."""
        return self._residual.true_mi

    @property
    def unconditional_mi(self) -> float:
        """I(x; y) without conditioning, in nats: what an estimator that ignores z finds."""
        dim_x, dim_y, _ = self.sides
        return _as_law(self.covariance_matrix()[: dim_x + dim_y, : dim_x + dim_y], dim_x).true_mi

    @final
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw n triples: x (n, Dx), y (n, Dy), z (n, Dz), float64; ValueError if n is below 1."""
        check_whole("n", n, 1)
        white = torch.randn(n, sum(self.sides), generator=generator, dtype=torch.float64)
        triples = white @ torch.linalg.cholesky(self.covariance_matrix()).T
        x, y, z = torch.split(triples, list(self.sides), dim=1)
        return x.contiguous(), y.contiguous(), z.contiguous()

    @final
    def log_ratio(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """(N,) float64 conditional log-ratio of each triple: that of the residuals of x and y given z."""
        means = z.double() @ self._regression.to(z.device).T
        mean_x, mean_y = torch.split(means, list(self.sides[:2]), dim=1)
        return self._residual.log_ratio(x.double() - mean_x, y.double() - mean_y)

    @cached_property
    def _regression(self) -> Tensor:
        """(Dx + Dy, Dz) matrix B of the conditional mean B z."""
        both = sum(self.sides[:2])
        covariance = self.covariance_matrix()
        coefficients: Tensor = torch.linalg.solve(covariance[both:, both:], covariance[both:, :both])
        return coefficients.T

    @cached_property
    def _residual(self) -> AbstractGaussian:
        both = sum(self.sides[:2])
        covariance = self.covariance_matrix()
        residual = covariance[:both, :both] - self._regression @ covariance[both:, :both]
        return _as_law((residual + residual.T) / 2, self.sides[0])


def _as_law(covariance: Tensor, dim_x: int) -> Gaussian:
    return Gaussian(covariance.tolist(), dim_x)


@final
@dataclass(frozen=True)
class ConditionalGaussian(AbstractConditionalGaussian):
    """Gaussian x, y and z with any covariance; the formula is that of :class:`AbstractConditionalGaussian`.

    Args:
        covariance: (Dx + Dy + Dz) rows, symmetric and positive definite.
        dim_x: Dx.
        dim_y: Dy; all other coordinates are z.

    Raises:
        TypeError: If a dimension is not a whole number.
        ValueError: If the matrix is not a covariance, or no coordinate is left for z.

    Source: Cover and Thomas 2006, chapter 8.

    Example:
        >>> collider = ConditionalGaussian([[1, 0, 1], [0, 1, 1], [1, 1, 3]])  # z = x + y + noise
        >>> collider.unconditional_mi, collider.true_conditional_mi
        (0.0, 0.1438)
    """

    covariance: Sequence[Sequence[float]]
    dim_x: int = 1
    dim_y: int = 1

    def __post_init__(self) -> None:
        check_whole("dim_x", self.dim_x, 1)
        check_whole("dim_y", self.dim_y, 1)
        object.__setattr__(self, "covariance", matrix_tuple("covariance", self.covariance))
        check_covariance("covariance", self.covariance)
        if self.dim_x + self.dim_y >= len(self.covariance):
            raise ValueError(
                f"Got dim_x={self.dim_x}, dim_y={self.dim_y} and a covariance of {len(self.covariance)} coordinates: "
                "none is left for z."
            )

    @property
    def sides(self) -> tuple[int, int, int]:
        """Dx, Dy and Dz."""
        return self.dim_x, self.dim_y, len(self.covariance) - self.dim_x - self.dim_y

    def covariance_matrix(self) -> Tensor:
        """The covariance as a float64 tensor."""
        return torch.tensor(self.covariance, dtype=torch.float64)

    def describe(self) -> str:
        """One line of plain text."""
        return f"Gaussian x, y, z of dimensions {self.sides} with a given covariance"


@final
@dataclass(frozen=True)
class ConfoundedGaussian(AbstractConditionalGaussian):
    r"""A Gaussian channel from x to y and a common cause z: :math:`x = a z + u` and :math:`y = x + b z + \sigma v`.

    z, u and v are standard normals with D coordinates. Given z, the channel remains:

    .. math:: I(x; y | z) = \frac{D}{2} \ln\Big(1 + \frac{1}{\sigma^2}\Big)

    The defaults have 1.733 nats. Samples are x, y and z, (n, D) each.

    Args:
        dim: D, at least 1.
        noise: sigma, positive.
        confounding: a, the weight of z in x.
        leak: b, the weight of z in y beside x.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of range.

    Source: Cover and Thomas 2006, chapter 9 (Gaussian channel).

    Example:
        >>> ConfoundedGaussian().true_conditional_mi
        1.7329
    """

    dim: int = 5
    noise: float = 1.0
    confounding: float = 1.0
    leak: float = 1.0

    def __post_init__(self) -> None:
        check_whole("dim", self.dim, 1)
        check_positive("noise", self.noise, "the standard deviation of the channel's noise")
        check_finite("confounding", self.confounding, "the weight of z in x")
        check_finite("leak", self.leak, "the weight of z in y")

    @property
    def sides(self) -> tuple[int, int, int]:
        """(D, D, D)."""
        return self.dim, self.dim, self.dim

    def covariance_matrix(self) -> Tensor:
        """(3 D, 3 D) float64 covariance of (x, y, z)."""
        # Rows x, y and z, columns of the standard normals z, u and v.
        a, b = self.confounding, self.leak
        mixing = torch.tensor([[a, 1, 0], [a + b, 1, self.noise], [1, 0, 0]], dtype=torch.float64)
        return torch.kron(mixing @ mixing.T, torch.eye(self.dim, dtype=torch.float64))

    def describe(self) -> str:
        """One line of plain text."""
        return f"Gaussian channel of {self.dim} coordinates with noise {self.noise:g} and a common cause z"
