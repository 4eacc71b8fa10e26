"""Multivariate Student-t: dependence of heavy tails, also between uncorrelated coordinates."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.laws._random import numpy_generator
from lightning_mi.data.laws.abstract_gaussian import AbstractGaussian, QuadraticForms
from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.utilities.checks import check_instance, check_positive


@final
@dataclass(frozen=True)
class StudentT(AbstractLaw):
    r"""A Gaussian pair (x, y) divided by one chi variable: :math:`(x, y) = g / \sqrt{\chi^2_\nu / \nu}`.

    .. math::

        I = I_g + h(D_x) + h(D_y) - h(D_x + D_y), \quad
        h(k) = -\ln \Gamma(\tfrac{\nu + k}{2}) + \ln \Gamma(\tfrac{\nu}{2}) + \tfrac{k}{2} \ln \nu \pi
        + \tfrac{\nu + k}{2} \big(\psi(\tfrac{\nu + k}{2}) - \psi(\tfrac{\nu}{2})\big)

    Samples are x (n, Dx) and y (n, Dy). They have no variance for :math:`\nu \le 2` and no mean for :math:`\nu \le 1`:
    float32 holds them, but most critics need ``asinh`` first.

    Args:
        gaussian: The law of g; its covariance is the dispersion.
        df: Degrees of freedom nu, positive.

    Raises:
        TypeError: If ``gaussian`` is not a Gaussian law, or ``df`` not a number.
        ValueError: If ``df`` is not positive.

    Source: Arellano-Valle et al. 2013; Czyz et al. 2023.

    Example:
        >>> from lightning_mi.data.laws import GaussianPairs
        >>> StudentT(GaussianPairs(dim=5, rho=0.0), df=2).true_mi
        0.4482
    """

    gaussian: AbstractGaussian
    df: float = 1.0

    def __post_init__(self) -> None:
        check_instance("gaussian", self.gaussian, AbstractGaussian, "laws.GaussianPairs(rho=0.0)")
        check_positive("df", self.df, "the degrees of freedom")

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats."""
        dim_x, dim_y = self.gaussian.sides
        return self.gaussian.true_mi + self._entropy(dim_x) + self._entropy(dim_y) - self._entropy(dim_x + dim_y)

    @property
    def exchangeable(self) -> bool:
        """Whether the Gaussian law is."""
        return self.gaussian.exchangeable

    def describe(self) -> str:
        """One line of plain text."""
        return f"Student-t with {self.df:g} degrees of freedom; dispersion: {self.gaussian.describe()}"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = self.gaussian.sample(n, generator)
        chi_square = torch.from_numpy(numpy_generator(generator).chisquare(self.df, size=(n, 1)))
        scale = (self.df / chi_square).sqrt()
        return x * scale, y * scale

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        forms = self.gaussian.quadratic_forms(x, y)
        return self._ratio(forms, forms.x)

    def _log_ratio_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        forms = self.gaussian.quadratic_forms(x, y, every_pair=True)
        return self._ratio(forms, forms.x.unsqueeze(1))

    def _ratio(self, forms: QuadraticForms, form_x: Tensor) -> Tensor:
        dim_x, dim_y = self.gaussian.sides
        constant = self._log_constant(dim_x + dim_y) - self._log_constant(dim_x) - self._log_constant(dim_y)
        return (
            (self.gaussian.true_mi + constant)
            + self._log_tail(form_x, dim_x)
            + self._log_tail(forms.y, dim_y)
            - self._log_tail(form_x + forms.y_given_x, dim_x + dim_y)
        )

    def _log_tail(self, form: Tensor, dim: int) -> Tensor:
        """Minus the log density of ``dim`` coordinates at a squared length, up to a constant."""
        return 0.5 * (self.df + dim) * torch.log1p(form / self.df)

    def _log_constant(self, dim: int) -> float:
        """The log density at 0 for the dispersion 1."""
        return math.lgamma((self.df + dim) / 2) - math.lgamma(self.df / 2) - dim / 2 * math.log(self.df * math.pi)

    def _entropy(self, dim: int) -> float:
        """Differential entropy of ``dim`` coordinates with the dispersion 1, nats."""
        half = torch.tensor([self.df / 2, (self.df + dim) / 2], dtype=torch.float64)
        low, high = torch.special.digamma(half).tolist()
        return float((self.df + dim) / 2 * (high - low) - self._log_constant(dim))
