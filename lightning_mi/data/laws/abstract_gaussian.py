"""Joint Gaussian laws: samples, MI and log-ratio from the covariance."""

import math
from abc import abstractmethod
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.data.laws.base import AbstractLaw


class QuadraticForms(NamedTuple):
    """Squared Mahalanobis lengths.

    Attributes:
        x: (N,) of x.
        y: (N,) or (M,) of y.
        y_given_x: (N,) or (N, M) of y around its mean given x. With ``x`` it adds up to that of the pair.
    """

    x: Tensor
    y: Tensor
    y_given_x: Tensor


class _Factors(NamedTuple):
    """Cholesky factors of the covariance, and whitening matrices in float64."""

    joint: Tensor  # L, lower triangular: L L^T is the covariance of (x, y)
    white_x: Tensor  # |white_x x|^2 is the squared Mahalanobis length of x
    white_y: Tensor
    residual_x: Tensor  # residual_y y - residual_x x is white noise, independent of x
    residual_y: Tensor
    mi: float


class AbstractGaussian(AbstractLaw):
    r"""(x, y) ~ N(0, S).

    .. math:: I = \frac{1}{2} \ln \frac{\det S_x \det S_y}{\det S}

    Source: Cover and Thomas 2006, chapter 8.
    """

    @property
    @abstractmethod
    def sides(self) -> tuple[int, int]:
        """The dimensions Dx of x and Dy of y."""

    @abstractmethod
    def covariance_matrix(self) -> Tensor:
        """(Dx + Dy, Dx + Dy) float64 covariance S of (x, y)."""

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats."""
        return self._factors.mi

    @final
    def quadratic_forms(self, x: Tensor, y: Tensor, *, every_pair: bool = False) -> QuadraticForms:
        """Squared Mahalanobis lengths of x, of y and of y given x, in float64.

        Args:
            x: (N, Dx).
            y: (N, Dy), or (M, Dy) for every pair.
            every_pair: Whether ``y_given_x`` is the (N, M) matrix of every x with every y.

        Raises:
            ValueError: x or y has other dimensions.
        """
        for side, value, dim in zip("xy", (x, y), self.sides, strict=True):
            if value.shape[1:] != (dim,):
                raise ValueError(
                    f"Got {side} of shape {tuple(value.shape)}: a sample of {type(self).__name__} has the shape "
                    f"(N, {dim})."
                )
        factors = self._factors
        x, y = x.double(), y.double()
        mean, white = x @ factors.residual_x.to(x.device).T, y @ factors.residual_y.to(y.device).T
        if every_pair:
            # The expanded product mean @ white.T cancels for strong correlations.
            distance = torch.cdist(mean, white, compute_mode="donot_use_mm_for_euclid_dist").square()
        else:
            distance = (white - mean).square().sum(1)
        squares = [
            (value @ matrix.to(value.device).T).square().sum(1)
            for value, matrix in ((x, factors.white_x), (y, factors.white_y))
        ]
        return QuadraticForms(squares[0], squares[1], distance)

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        dim_x, dim_y = self.sides
        noise = torch.randn(n, dim_x + dim_y, generator=generator, dtype=torch.float64)
        x, y = torch.split(noise @ self._factors.joint.T, [dim_x, dim_y], dim=1)
        return x.contiguous(), y.contiguous()

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        return self._ratio(self.quadratic_forms(x, y))

    def _log_ratio_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        return self._ratio(self.quadratic_forms(x, y, every_pair=True))

    def _ratio(self, forms: QuadraticForms) -> Tensor:
        # log p(y | x) - log p(y). The determinants of the two densities differ by the factor exp(2 I).
        return self._factors.mi + 0.5 * (forms.y - forms.y_given_x)

    @cached_property
    def _factors(self) -> _Factors:
        covariance = self.covariance_matrix()
        dim_x, dim_y = self.sides
        joint = torch.linalg.cholesky(covariance)
        of_y = torch.linalg.cholesky(covariance[dim_x:, dim_x:])
        # The lower right block factors the covariance of y given x; the lower left one is its regression on white x.
        corner, residual = joint[dim_x:, :dim_x], joint[dim_x:, dim_x:]
        eye_x, eye_y = torch.eye(dim_x, dtype=torch.float64), torch.eye(dim_y, dtype=torch.float64)
        white_x = torch.linalg.solve_triangular(joint[:dim_x, :dim_x], eye_x, upper=False)
        residual_y = torch.linalg.solve_triangular(residual, eye_y, upper=False)
        mi = float(of_y.diagonal().log().sum() - residual.diagonal().log().sum())
        return _Factors(
            joint=joint,
            white_x=white_x,
            white_y=torch.linalg.solve_triangular(of_y, eye_y, upper=False),
            residual_x=residual_y @ corner @ white_x,
            residual_y=residual_y,
            mi=max(mi, 0.0) if math.isfinite(mi) else mi,
        )
