"""GaussianNoise: a layer that adds noise."""

from typing import final

import torch
from torch import Tensor, nn

from lightning_mi.utilities.checks import check_positive


@final
class GaussianNoise(nn.Module):
    """Adds Gaussian noise, in training and in evaluation: a stochastic layer has finite mutual information.

    Args:
        std: Standard deviation of the noise.

    Raises:
        TypeError: ``std`` is not a number.
        ValueError: ``std`` is not positive.

    Source: Goldfeld et al. 2019.

    Example:
        >>> noisy = GaussianNoise(0.5)(torch.zeros(1000, 2))
        >>> round(noisy.std().item(), 1)
        0.5
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        check_positive("std", std, "the standard deviation of the noise")
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """The input plus noise of its shape."""
        return x + self.std * torch.randn_like(x)

    def extra_repr(self) -> str:
        """The argument, for ``print(module)``."""
        return f"std={self.std}"
