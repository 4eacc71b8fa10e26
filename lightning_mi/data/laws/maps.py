"""Injective maps of each coordinate of x or of y, with their inverses: they keep the mutual information.

Maps of whole vectors are in ``vector_maps.py``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from lightning_mi.data.laws._arguments import check_probability
from lightning_mi.data.transforms import TransformName, get_transform
from lightning_mi.utilities.checks import check_choice, check_finite


class AbstractMap(ABC):
    """Injective map of one side of a law, and its inverse on the image. Maps are frozen dataclasses."""

    @abstractmethod
    def forward(self, value: Tensor) -> Tensor:
        """Map n float64 samples, or n labels."""

    @abstractmethod
    def inverse(self, value: Tensor) -> Tensor:
        """The float64 samples, or the labels, whose images these are; images may be rounded to another dtype."""

    @property
    def name(self) -> str:
        """Short name: the class."""
        return type(self).__name__


@final
@dataclass(frozen=True)
class Elementwise(AbstractMap):
    """A transform of :func:`~lightning_mi.data.get_transform`, by name.

    Args:
        transform: ``identity``, ``cubic``, ``asinh``, ``half_cube`` or ``normal_cdf``. In float32, the inverse of
            ``normal_cdf`` has the errors that :func:`~lightning_mi.data.get_transform` states.

    Raises:
        ValueError: If there is no such transform.

    Source: Poole et al. 2019 (``cubic``); Czyz et al. 2023 (all others).

    Example:
        >>> Elementwise("half_cube").forward(torch.tensor([-4.0]))
        tensor([-8.])
    """

    transform: TransformName = "identity"

    def __post_init__(self) -> None:
        get_transform(self.transform)  # raises for an unknown name

    @property
    def name(self) -> str:
        """The name of the transform."""
        return self.transform

    def forward(self, value: Tensor) -> Tensor:
        """The transform of each coordinate."""
        return get_transform(self.transform).forward(value)

    def inverse(self, value: Tensor) -> Tensor:
        """The inverse of each coordinate, float64."""
        if self.transform == "normal_cdf" and value.is_floating_point():
            # Rounding a probability to float32 may give 0 or 1, whose inverse is infinite.
            info = torch.finfo(value.dtype)
            value = value.clamp(info.tiny, 1 - info.eps / 2)
        return get_transform(self.transform).inverse(value.double())


@final
@dataclass(frozen=True)
class Wiggly(AbstractMap):
    r"""Add three sines to each coordinate; the slope stays positive.

    For x: :math:`v + 0.4 \sin v + 0.2 \sin(1.7 v + 1) + 0.03 \sin(3.3 v - 2.5)`. For y:
    :math:`v - 0.4 \sin 0.4 v + 0.17 \sin(1.3 v + 3.5) + 0.02 \sin(4.3 v - 2.5)`. The inverse is found by bisection.

    Args:
        side: ``x`` or ``y``: which of the two functions.

    Raises:
        ValueError: If ``side`` is another word.

    Source: Czyz et al. 2023.

    Example:
        >>> wiggly = Wiggly("y")
        >>> wiggly.inverse(wiggly.forward(torch.tensor([1.5]).double()))
        tensor([1.5000], dtype=torch.float64)
    """

    side: Literal["x", "y"] = "x"

    def __post_init__(self) -> None:
        check_choice("side", self.side, ("x", "y"))

    def forward(self, value: Tensor) -> Tensor:
        """The sum of each coordinate and its sines."""
        return value + sum(a * torch.sin(b * value + c) for a, b, c in _SINES[self.side])

    def inverse(self, value: Tensor) -> Tensor:
        """The inverse of each coordinate, float64, with an error of 1e-15 relative to its magnitude."""
        value = value.double()
        reach = sum(abs(amplitude) for amplitude, _, _ in _SINES[self.side])
        return _increasing_inverse(self.forward, value, value - reach, value + reach)


# Amplitude, frequency and phase.
_SINES = {
    "x": ((0.4, 1.0, 0.0), (0.2, 1.7, 1.0), (0.03, 3.3, -2.5)),
    "y": ((-0.4, 0.4, 0.0), (0.17, 1.3, 3.5), (0.02, 4.3, -2.5)),
}


@final
@dataclass(frozen=True)
class Bimodal(AbstractMap):
    """Map a standard normal coordinate to a mixture of two normals with variance 1, by its quantiles.

    The image of v has the probability Phi(v) in the mixture. It is found by bisection, with an error below 1e-12
    from v = -8 to 8.

    Args:
        first: Mean of the first component.
        second: Mean of the second component.
        weight: Probability of the first component, strictly between 0 and 1.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of range.

    Source: Czyz et al. 2023.

    Example:
        >>> Bimodal(-1.0, 3.0, weight=0.5).forward(torch.zeros(1).double())
        tensor([1.], dtype=torch.float64)
    """

    first: float = 0.0
    second: float = 5.0
    weight: float = 0.3

    def __post_init__(self) -> None:
        check_finite("first", self.first, "the mean of the first component")
        check_finite("second", self.second, "the mean of the second component")
        check_probability("weight", self.weight)
        if self.weight in (0, 1):
            raise ValueError(f"Got weight={self.weight}: a mixture has two components. Give a weight between 0 and 1.")

    def forward(self, value: Tensor) -> Tensor:
        """The quantile of the mixture."""
        low, high = sorted((self.first, self.second))
        # The quantile of the mixture lies between those of its components.
        return _increasing_inverse(self.inverse, value.double(), value.double() + low, value.double() + high)

    def inverse(self, value: Tensor) -> Tensor:
        """The standard normal quantile of the mixture's distribution function, float64."""
        value = value.double()
        first, second = value - self.first, value - self.second
        below = self._average(_normal_cdf(first), _normal_cdf(second))
        above = self._average(_normal_cdf(-first), _normal_cdf(-second))
        # The smaller of the two tails has the smaller rounding error.
        return torch.where(below < above, torch.special.ndtri(below), -torch.special.ndtri(above))

    def _average(self, first: Tensor, second: Tensor) -> Tensor:
        return self.weight * first + (1 - self.weight) * second


def _normal_cdf(value: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-math.sqrt(0.5) * value)  # the lower tail of torch.special.ndtr cancels


def _increasing_inverse(function: Callable[[Tensor], Tensor], value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The argument at which an increasing function has a value, between ``low`` and ``high``, by bisection."""
    for _ in range(60):  # the width of the interval falls to that of float64's rounding
        middle = (low + high) / 2
        below = function(middle) < value
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
