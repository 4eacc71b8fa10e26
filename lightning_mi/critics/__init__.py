"""Critics: T(x, y) for matching rows, and for all pairs of rows."""

from lightning_mi.critics.base import AbstractCritic
from lightning_mi.critics.bilinear import BilinearCritic
from lightning_mi.critics.calibrated import CalibratedCritic
from lightning_mi.critics.diagonal_gaussian import DiagonalGaussian
from lightning_mi.critics.gaussian_conditional import GaussianConditional
from lightning_mi.critics.gaussian_copula import GaussianCopulaCritic
from lightning_mi.critics.inner_product import InnerProductCritic
from lightning_mi.critics.joint import JointCritic
from lightning_mi.critics.label import LabelCritic
from lightning_mi.critics.separable import SeparableCritic

__all__ = [
    "AbstractCritic",
    "BilinearCritic",
    "CalibratedCritic",
    "DiagonalGaussian",
    "GaussianConditional",
    "GaussianCopulaCritic",
    "InnerProductCritic",
    "JointCritic",
    "LabelCritic",
    "SeparableCritic",
]
