"""Coordinates in which MI is estimated: Gaussian ranks and features of numbers, one column for each label."""

from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
ATOM_FRACTION = 0.02  # of n: a value this frequent has a positive probability
_MAX_ATOMS = 16  # of a column
_MAX_RADIUS = 1.5  # standard deviations, in the products: more makes their tails heavy


class Coordinates(Protocol):
    """A map from a variable to the coordinates of a critic.

    Attributes:
        num_ranks: The number D of Gaussian ranks. The first D columns are their products with the radius, the next D
            are the ranks, and features follow.
    """

    num_ranks: int

    def __call__(self, values: Array) -> Tensor:
        """(n, D) to (n, C) float32."""


@final
class RankCoordinates:
    """Gaussian ranks of each column, their products with the log of the radius, and features.

    MI does not change under injective maps of x or of y. Ranks remove heavy tails. The products describe a dependence
    whose direction turns with the distance from the center. The features, asinh of the standardized columns and the
    log of the radius, restore the geometry of the original coordinates, which ranks distort.

    Source: Waerden 1952 (normal scores).

    Args:
        reference: (n, D) the samples that ranks and scales are those of.
        atoms: Add a feature for each frequent value of a column.

    Example:
        >>> values = np.array([[10.0], [-1.0], [1e6]])
        >>> RankCoordinates(values)(values)[:, 1]
        tensor([ 0.0000, -0.9674,  0.9674])
    """

    def __init__(self, reference: Array, *, atoms: bool = False) -> None:
        self.num_ranks = reference.shape[1]
        self._sorted = np.sort(reference, axis=0)
        lower, self._median, upper = np.quantile(reference, [0.25, 0.5, 0.75], axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            spread = reference.std(axis=0)
        scale = (upper - lower) / 1.349  # the interquartile range of a standard normal variable
        self._scale = np.where(scale > 0, scale, np.maximum(spread, 1e-12))
        radius = self._radius(reference)
        self._radius_mean, self._radius_std = float(radius.mean()), max(float(radius.std()), 1e-12)
        self._atoms = [_frequent(column) if atoms else np.empty(0) for column in reference.T]

    def __call__(self, values: Array) -> Tensor:
        """(n, D) values, of the reference or new, to (n, C) coordinates."""
        radius = (self._radius(values) - self._radius_mean) / self._radius_std
        indicators = [column[:, None] == frequent for column, frequent in zip(values.T, self._atoms, strict=True)]
        ranks, scaled = self.ranks(values), np.arcsinh((values - self._median) / self._scale)
        columns = [ranks * radius.clip(-_MAX_RADIUS, _MAX_RADIUS), ranks, scaled, radius, *indicators]
        return torch.from_numpy(np.hstack(columns)).float()

    def ranks(self, values: Array) -> Array:
        """(n, D) standard normal quantiles of the ranks of each column; ties have their mean rank."""
        n = len(self._sorted)
        ranks = np.empty_like(values)
        for column, (ordered, new) in enumerate(zip(self._sorted.T, values.T, strict=True)):
            ranks[:, column] = (ordered.searchsorted(new) + ordered.searchsorted(new, "right") + 1) / 2
        uniform = np.clip((ranks - 0.5) / n, 0.5 / n, 1 - 0.5 / n)
        quantiles: Array = torch.special.ndtri(torch.from_numpy(uniform)).numpy()
        return quantiles

    def _radius(self, values: Array) -> Array:
        scaled = (values - self._median) / self._scale
        radius: Array = np.log1p(np.mean(scaled**2, axis=1, keepdims=True))
        return radius


@final
class OneHotCoordinates:
    """One column for each label, which the Gaussian of a critic does not describe.

    Args:
        num_classes: C.

    Example:
        >>> OneHotCoordinates(3)(np.array([[0.0], [2.0]]))
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """

    def __init__(self, num_classes: int) -> None:
        self.num_ranks = 0
        self._num_classes = num_classes

    def __call__(self, values: Array) -> Tensor:
        """(n, 1) labels 0 to C - 1 to (n, C)."""
        return torch.eye(self._num_classes)[torch.from_numpy(values[:, 0]).long()]


def _frequent(column: Array) -> Array:
    """The most frequent values of a column that have a positive probability."""
    distinct, counts = np.unique(column, return_counts=True)
    if len(distinct) == 1:
        return np.empty(0)
    order = np.argsort(-counts)[:_MAX_ATOMS]
    frequent: Array = distinct[order][counts[order] >= ATOM_FRACTION * len(column)]
    return frequent
