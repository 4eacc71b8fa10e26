"""Injective maps of whole vectors: spiral, rotation, Swiss roll; and of labels to one-hot vectors."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.laws.maps import AbstractMap
from lightning_mi.utilities.checks import check_finite, check_whole
from lightning_mi.utilities.labels import check_labels


@final
@dataclass(frozen=True)
class Spiral(AbstractMap):
    r"""Rotate two coordinates by an angle that grows with the length of the vector.

    The angle is :math:`s |v|^2`, counted from coordinate i to coordinate j. The length stays the same, so the inverse
    rotates back.

    Args:
        first: Coordinate i, counted from 0.
        second: Coordinate j.
        speed: s, in radians.

    Raises:
        TypeError: If a coordinate is not a whole number.
        ValueError: If a coordinate is negative or both are the same; in use, if a vector does not have them.

    Source: Czyz et al. 2023.

    Example:
        >>> Spiral(0, 1, speed=math.pi / 2).forward(torch.tensor([[1.0, 0.0, 0.0]])).round()
        tensor([[-0., 1., 0.]])
    """

    first: int = 0
    second: int = 1
    speed: float = 1.0

    def __post_init__(self) -> None:
        check_whole("first", self.first, 0)
        check_whole("second", self.second, 0)
        check_finite("speed", self.speed, "radians for the squared length 1")
        if self.first == self.second:
            raise ValueError(f"Got first=second={self.first}: a rotation needs two different coordinates.")

    def forward(self, value: Tensor) -> Tensor:
        """(n, D) rotated vectors."""
        return self._rotate(value, self.speed)

    def inverse(self, value: Tensor) -> Tensor:
        """(n, D) float64."""
        return self._rotate(value.double(), -self.speed)

    def _rotate(self, value: Tensor, speed: float) -> Tensor:
        if value.ndim != 2 or value.shape[1] <= max(self.first, self.second):
            raise ValueError(
                f"Got vectors of shape {tuple(value.shape)}: a Spiral of the coordinates {self.first} and "
                f"{self.second} needs the shape (n, D) with D above {max(self.first, self.second)}."
            )
        angle = speed * value.square().sum(1)
        cos, sin = angle.cos(), angle.sin()
        a, b = value[:, self.first], value[:, self.second]
        result = value.clone()
        result[:, self.first], result[:, self.second] = cos * a - sin * b, sin * a + cos * b
        return result


@final
@dataclass(frozen=True)
class Rotation(AbstractMap):
    """Multiply vectors by a random orthogonal matrix, uniformly distributed.

    Args:
        dim: Dimension D of the vectors.
        seed: Seed of the matrix.

    Raises:
        TypeError: If an argument is not a whole number.
        ValueError: If ``dim`` is below 1 or ``seed`` negative.

    Source: Stewart 1980.

    Example:
        >>> Rotation(3).forward(torch.ones(1, 3).double()).norm()  # the square root of 3
        tensor(1.7321, dtype=torch.float64)
    """

    dim: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("dim", self.dim, 1)
        check_whole("seed", self.seed, 0)

    @cached_property
    def _matrix(self) -> Tensor:
        noise = torch.randn(self.dim, self.dim, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        q, r = torch.linalg.qr(noise)
        matrix: Tensor = q * r.diagonal().sign()  # without the signs it would not be uniformly distributed
        return matrix

    def forward(self, value: Tensor) -> Tensor:
        """(n, D) rotated vectors."""
        return value @ self._matrix.to(value).T

    def inverse(self, value: Tensor) -> Tensor:
        """(n, D) float64."""
        return value.double() @ self._matrix.to(value.device)


@final
@dataclass(frozen=True)
class SwissRoll(AbstractMap):
    r"""Roll a number v in [0, 1] up to a spiral in the plane, (n, 1) to (n, 2).

    The image is :math:`(t \cos t, t \sin t) / 21` with :math:`t = 1.5 \pi (1 + 2 v)`, so t is 21 times its length.

    Raises:
        ValueError: In use, if samples are not of the shape (n, 1).

    Source: Marsland 2009 (curve); Czyz et al. 2023.

    Example:
        >>> SwissRoll().inverse(SwissRoll().forward(torch.tensor([[0.25]])))
        tensor([[0.2500]], dtype=torch.float64)
    """

    def forward(self, value: Tensor) -> Tensor:
        """(n, 2) points of the curve."""
        if value.ndim != 2 or value.shape[1] != 1:
            raise ValueError(f"Got samples of shape {tuple(value.shape)}: a Swiss roll takes the shape (n, 1).")
        t = 1.5 * math.pi * (1 + 2 * value)
        return torch.cat([t * t.cos(), t * t.sin()], dim=1) / 21

    def inverse(self, value: Tensor) -> Tensor:
        """(n, 1) float64 numbers in [0, 1]."""
        t: Tensor = 21 * value.double().norm(dim=1, keepdim=True)
        return (t / (1.5 * math.pi) - 1) / 2


@final
@dataclass(frozen=True)
class OneHotLabels(AbstractMap):
    """Map labels (n,) to one-hot vectors (n, K), for critics that take vectors.

    Args:
        num_labels: K, at least 2.

    Raises:
        TypeError: If ``num_labels`` is not a whole number; in use, if labels are not integers.
        ValueError: If it is below 2; in use, if a label is not below it.

    Example:
        >>> OneHotLabels(3).forward(torch.tensor([2, 0]))
        tensor([[0., 0., 1.],
                [1., 0., 0.]], dtype=torch.float64)
    """

    num_labels: int = 2

    def __post_init__(self) -> None:
        check_whole("num_labels", self.num_labels, 2)

    def forward(self, value: Tensor) -> Tensor:
        """(n, K) float64."""
        labels = check_labels(value, len(value), "OneHotLabels", self.num_labels)
        return torch.nn.functional.one_hot(labels, self.num_labels).double()

    def inverse(self, value: Tensor) -> Tensor:
        """(n,) int64 labels."""
        return value.argmax(dim=1)
