"""The exact critic of standard normal pairs."""

import math

from lightning_mi.critics import AbstractCritic


class Exact(AbstractCritic):
    """Log density ratio of standard normal x and y with one correlation in all coordinates."""

    def __init__(self, rho):
        super().__init__()
        self.rho = rho

    def paired(self, x, y):
        return self._ratio(x, y)

    def pairwise(self, x, y):
        return self._ratio(x.unsqueeze(1), y.unsqueeze(0))

    def _ratio(self, x, y):
        rest = 1 - self.rho**2
        quadratic = self.rho**2 * (x.square() + y.square()) - 2 * self.rho * x * y
        return (-0.5 * math.log(rest) - quadratic / (2 * rest)).sum(-1)
