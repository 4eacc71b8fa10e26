"""The exact critic of standard normal pairs."""

import math

from torch import Tensor

from lightning_mi.critics import AbstractCritic


class Exact(AbstractCritic):
    """Log density ratio of standard normal x and y with one correlation in all coordinates."""

    def __init__(self, rho: float) -> None:
        super().__init__()
        self.rho = rho

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        return self.pairwise(x, y).diagonal()

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        rest = 1 - self.rho**2
        squares = x.square().sum(1, keepdim=True) + y.square().sum(1)
        return -x.shape[1] * math.log(rest) / 2 - self.rho * (self.rho * squares - 2 * x @ y.T) / (2 * rest)
