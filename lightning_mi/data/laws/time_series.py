"""Vector autoregression: autocorrelated samples of a Gaussian law."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.laws._arguments import check_covariance, matrix_tuple
from lightning_mi.data.laws.abstract_gaussian import AbstractGaussian
from lightning_mi.utilities.checks import check_whole


@final
@dataclass(frozen=True)
class VectorAutoregression(AbstractGaussian):
    r"""Stationary Gaussian time series :math:`z_t = A z_{t-1} + e_t`, of which x_t and y_t are parts.

    The noise is :math:`e_t \sim N(0, Q)`. The MI is that of simultaneous x_t and y_t. The
    stationary covariance solves :math:`S = A S A^T + Q`, and

    .. math:: I = \frac{1}{2} \ln \frac{\det S_x \det S_y}{\det S}

    Samples are x (n, Dx) and y (n, Dy): n consecutive times of one series, which starts in the stationary law. They
    are **not independent** (``independent_samples`` is False): a mean over them has a larger standard error than a mean
    over n independent pairs, and neighbors in time are not marginal pairs.

    Args:
        coefficients: (Dx + Dy) rows of A, with all eigenvalues inside the unit circle.
        noise_covariance: (Dx + Dy) rows of Q; by default the identity.
        dim_x: Dx; all other coordinates are y.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If the series is not stationary, Q is not a covariance of the same size, or no coordinate is left
            for y.

    Source: Lütkepohl 2005, section 2.1.

    Example:
        >>> VectorAutoregression([[0.8, 0.1], [0.5, 0.4]]).true_mi
        0.3730
    """

    coefficients: Sequence[Sequence[float]] = ((0.8, 0.1), (0.5, 0.4))
    noise_covariance: Sequence[Sequence[float]] | None = None
    dim_x: int = 1

    def __post_init__(self) -> None:
        check_whole("dim_x", self.dim_x, 1)
        object.__setattr__(self, "coefficients", matrix_tuple("coefficients", self.coefficients))
        size = len(self.coefficients)
        if len(self.coefficients[0]) != size or self.dim_x >= size:
            raise ValueError(
                f"Got coefficients with {size} rows of {len(self.coefficients[0])} numbers and dim_x={self.dim_x}: the "
                "matrix is square, with at least one coordinate more than dim_x."
            )
        radius = float(torch.linalg.eigvals(self._matrix).abs().max())
        if radius >= 1:
            raise ValueError(
                f"Got coefficients with an eigenvalue of modulus {radius:.6g}: the series is stationary only if all "
                "are below 1. Scale the matrix down."
            )
        if self.noise_covariance is not None:
            noise = matrix_tuple("noise_covariance", self.noise_covariance)
            object.__setattr__(self, "noise_covariance", noise)
            check_covariance("noise_covariance", noise)
            if len(noise) != size:
                raise ValueError(f"Got noise_covariance of {len(noise)} coordinates: the series has {size}.")

    @property
    def independent_samples(self) -> bool:
        """False: consecutive pairs are correlated."""
        return False

    @property
    def sides(self) -> tuple[int, int]:
        """(Dx, Dy)."""
        return self.dim_x, len(self.coefficients) - self.dim_x

    def covariance_matrix(self) -> Tensor:
        """(Dx + Dy, Dx + Dy) float64 stationary covariance S."""
        size = len(self.coefficients)
        # S = A S A^T + Q is linear in S, with the matrix A x A in row-major order.
        system = torch.eye(size * size, dtype=torch.float64) - torch.kron(self._matrix, self._matrix)
        solution = torch.linalg.solve(system, self._noise.flatten()).reshape(size, size)
        symmetric: Tensor = (solution + solution.T) / 2
        return symmetric

    def describe(self) -> str:
        """One line of plain text."""
        return f"stationary vector autoregression {self.sides[0]} x {self.sides[1]}, samples not independent"

    @cached_property
    def _matrix(self) -> Tensor:
        return torch.tensor(self.coefficients, dtype=torch.float64)

    @property
    def _noise(self) -> Tensor:
        if self.noise_covariance is None:
            return torch.eye(len(self.coefficients), dtype=torch.float64)
        return torch.tensor(self.noise_covariance, dtype=torch.float64)

    @cached_property
    def _noise_factor(self) -> Tensor:
        factor: Tensor = torch.linalg.cholesky(self._noise)
        return factor

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        white = torch.randn(n, len(self.coefficients), generator=generator, dtype=torch.float64)
        series = white @ self._noise_factor.T
        series[0] = self._factors.joint @ white[0]  # the stationary law
        # Prefix sums in log2(n) passes. Before a pass with shift s, row t is the sum of A^i e_(t-i) over i below s.
        shift, power = 1, self._matrix
        while shift < n:
            series = torch.cat([series[:shift], series[shift:] + series[:-shift] @ power.T])
            shift, power = 2 * shift, power @ power
        x, y = torch.split(series, list(self.sides), dim=1)
        return x.contiguous(), y.contiguous()
