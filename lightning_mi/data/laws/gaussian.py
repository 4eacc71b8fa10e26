"""Gaussian laws: independent pairs, dense, sparse, and any covariance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.gaussian_laws import gaussian_mi, gaussian_rho
from lightning_mi.data.laws._arguments import check_covariance, matrix_tuple
from lightning_mi.data.laws.abstract_gaussian import AbstractGaussian
from lightning_mi.utilities.checks import check_finite, check_whole


@final
@dataclass(frozen=True)
class GaussianPairs(AbstractGaussian):
    r"""D independent pairs of standard normals with correlation rho.

    .. math:: I = -\frac{D}{2} \ln(1 - \rho^2)

    Samples are x (n, D) and y (n, D).

    Args:
        dim: Number of pairs D, at least 1.
        rho: Correlation, strictly between -1 and 1.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of range.

    Source: Belghazi et al. 2018; Poole et al. 2019.

    Example:
        >>> GaussianPairs(dim=1, rho=0.75).true_mi
        0.4133
    """

    dim: int = 1
    rho: float = 0.75

    def __post_init__(self) -> None:
        check_whole("dim", self.dim, 1)
        check_finite("rho", self.rho, "the correlation of each pair")
        gaussian_mi(self.rho, self.dim)  # raises for a correlation outside (-1, 1)

    @classmethod
    def from_mi(cls, mi: float, dim: int = 1) -> "GaussianPairs":
        """The law with mutual information ``mi`` in nats; ValueError as in :func:`~lightning_mi.data.gaussian_rho`.

        Example:
            >>> GaussianPairs.from_mi(5.0, dim=10).true_mi
            5.0
        """
        return cls(dim, gaussian_rho(mi, dim))

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats."""
        return gaussian_mi(self.rho, self.dim)

    @property
    def sides(self) -> tuple[int, int]:
        """(D, D)."""
        return self.dim, self.dim

    def covariance_matrix(self) -> Tensor:
        """(2 D, 2 D) float64."""
        return torch.eye(2, dtype=torch.float64).kron(torch.eye(self.dim, dtype=torch.float64)) + self.rho * (
            torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64).kron(torch.eye(self.dim, dtype=torch.float64))
        )

    @property
    def exchangeable(self) -> bool:
        """Whether (x, y) and (y, x) have the same law: always."""
        return True

    def describe(self) -> str:
        """One line of plain text."""
        return f"Gaussian, {self.dim} independent pairs with correlation {self.rho:g}"


@final
@dataclass(frozen=True)
class DenseGaussian(AbstractGaussian):
    r"""Standard normal coordinates, all with the same correlation c.

    With :math:`d(k) = (1 - c)^{k-1} (1 + (k-1) c)`, the determinant of k coordinates:

    .. math:: I = \frac{1}{2} \ln \frac{d(D_x) \, d(D_y)}{d(D_x + D_y)}

    Samples are x (n, Dx) and y (n, Dy).

    Args:
        dim_x: Dx, at least 1.
        dim_y: Dy, at least 1.
        correlation: c, below 1 and above -1 / (Dx + Dy - 1).

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of range.

    Source: Czyz et al. 2023.

    Example:
        >>> DenseGaussian(5, 5, correlation=0.5).true_mi
        0.5928
    """

    dim_x: int = 2
    dim_y: int = 2
    correlation: float = 0.5

    def __post_init__(self) -> None:
        check_whole("dim_x", self.dim_x, 1)
        check_whole("dim_y", self.dim_y, 1)
        check_finite("correlation", self.correlation, "that of any two coordinates")
        lowest = -1 / (self.dim_x + self.dim_y - 1)
        if not lowest < self.correlation < 1:
            raise ValueError(
                f"Got correlation={self.correlation}: {self.dim_x + self.dim_y} coordinates have a common correlation "
                f"above {lowest:g} and below 1."
            )

    @property
    def sides(self) -> tuple[int, int]:
        """(Dx, Dy)."""
        return self.dim_x, self.dim_y

    def covariance_matrix(self) -> Tensor:
        """(Dx + Dy, Dx + Dy) float64."""
        size = self.dim_x + self.dim_y
        return torch.full((size, size), self.correlation, dtype=torch.float64).fill_diagonal_(1.0)

    @property
    def exchangeable(self) -> bool:
        """Whether Dx equals Dy."""
        return self.dim_x == self.dim_y

    def describe(self) -> str:
        """One line of plain text."""
        return f"Gaussian {self.dim_x} x {self.dim_y}, every correlation {self.correlation:g}"


@final
@dataclass(frozen=True)
class SparseGaussian(AbstractGaussian):
    r"""The first K coordinates of x and y share a latent variable each; all others are independent.

    :math:`x_i = s z_i + u_i` and :math:`y_i = s z_i + v_i` for i up to K, with standard normal z, u and v. Each
    coordinate is divided by its standard deviation, so the correlation of a pair is :math:`s^2 / (1 + s^2)`: 0.8 for
    the strength 2.

    .. math:: I = -\frac{K}{2} \ln\Big(1 - \frac{s^4}{(1 + s^2)^2}\Big)

    Samples are x (n, Dx) and y (n, Dy).

    Args:
        dim_x: Dx, at least 1.
        dim_y: Dy, at least 1.
        num_pairs: K, at most Dx and Dy.
        strength: s.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of range.

    Source: Czyz et al. 2023.

    Example:
        >>> SparseGaussian(25, 25).true_mi
        1.0217
    """

    dim_x: int = 3
    dim_y: int = 3
    num_pairs: int = 2
    strength: float = 2.0

    def __post_init__(self) -> None:
        check_whole("dim_x", self.dim_x, 1)
        check_whole("dim_y", self.dim_y, 1)
        check_whole("num_pairs", self.num_pairs, 0)
        check_finite("strength", self.strength, "the weight of the shared latent variable")
        if self.num_pairs > min(self.sides):
            raise ValueError(
                f"Got num_pairs={self.num_pairs}, dim_x={self.dim_x} and dim_y={self.dim_y}: each pair needs a "
                "coordinate of both sides. Lower num_pairs, or raise the dimensions."
            )

    @property
    def sides(self) -> tuple[int, int]:
        """(Dx, Dy)."""
        return self.dim_x, self.dim_y

    def covariance_matrix(self) -> Tensor:
        """(Dx + Dy, Dx + Dy) float64."""
        covariance = torch.eye(self.dim_x + self.dim_y, dtype=torch.float64)
        pairs = torch.arange(self.num_pairs)
        square = self.strength * self.strength
        covariance[pairs, self.dim_x + pairs] = covariance[self.dim_x + pairs, pairs] = square / (1 + square)
        return covariance

    @property
    def exchangeable(self) -> bool:
        """Whether Dx equals Dy."""
        return self.dim_x == self.dim_y

    def describe(self) -> str:
        """One line of plain text."""
        return f"Gaussian {self.dim_x} x {self.dim_y}, {self.num_pairs} dependent pairs of strength {self.strength:g}"


@final
@dataclass(frozen=True)
class Gaussian(AbstractGaussian):
    r"""Gaussian with any covariance S and mean 0.

    .. math:: I = \frac{1}{2} \ln \frac{\det S_x \det S_y}{\det S}

    Samples are x (n, Dx) and y (n, Dy).

    Args:
        covariance: (Dx + Dy) rows of S, symmetric and positive definite.
        dim_x: Dx; all other coordinates are y.

    Raises:
        TypeError: If ``dim_x`` is not a whole number.
        ValueError: If the matrix is not a covariance, or no coordinate is left for y.

    Source: Cover and Thomas 2006, chapter 8.

    Example:
        >>> Gaussian([[1.0, 0.6], [0.6, 2.0]]).true_mi  # -0.5 log(1 - 0.36 / 2)
        0.0992
    """

    covariance: Sequence[Sequence[float]]
    dim_x: int = 1

    def __post_init__(self) -> None:
        check_whole("dim_x", self.dim_x, 1)
        object.__setattr__(self, "covariance", matrix_tuple("covariance", self.covariance))
        check_covariance("covariance", self.covariance)
        if self.dim_x >= len(self.covariance):
            raise ValueError(
                f"Got dim_x={self.dim_x} and a covariance of {len(self.covariance)} coordinates: none is left for y. "
                "Lower dim_x."
            )

    @property
    def sides(self) -> tuple[int, int]:
        """(Dx, Dy)."""
        return self.dim_x, len(self.covariance) - self.dim_x

    def covariance_matrix(self) -> Tensor:
        """(Dx + Dy, Dx + Dy) float64."""
        return torch.tensor(self.covariance, dtype=torch.float64)

    def describe(self) -> str:
        """One line of plain text."""
        return f"Gaussian {self.sides[0]} x {self.sides[1]} with a given covariance"
