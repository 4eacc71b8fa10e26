"""Critics: T(x, y) for matching rows, and for all pairs of rows."""

from lightning_mi.critics.base import AbstractCritic
from lightning_mi.critics.calibrated import Calibrated
from lightning_mi.critics.labels import LabelCritic
from lightning_mi.critics.networks import JointCritic, SeparableCritic, mlp
from lightning_mi.critics.products import BilinearCritic, InnerProductCritic

__all__ = [
    "AbstractCritic",
    "BilinearCritic",
    "Calibrated",
    "InnerProductCritic",
    "JointCritic",
    "LabelCritic",
    "SeparableCritic",
    "mlp",
]
