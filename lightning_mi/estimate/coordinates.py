"""Coordinates in which MI is estimated: Gaussian ranks, and features for the networks."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


class Coordinates(NamedTuple):
    """One variable in the coordinates of the critic.

    Attributes:
        values: (n, D + F) float32: D Gaussian ranks, then F features.
        num_ranks: D.
    """

    values: Tensor
    num_ranks: int


def coordinates(values: Array) -> Coordinates:
    """Gaussian ranks of each column; and as features asinh of the standardized columns and the log of the radius.

    MI does not change under injective maps of x or of y. Ranks remove heavy tails; the features restore the geometry
    of the original coordinates, which ranks distort, such as a distance from the center.

    Args:
        values: (n, D), without NaN.

    Example:
        >>> coordinates(np.arange(8.0).reshape(4, 2)).values.shape
        torch.Size([4, 5])
    """
    ranks = gaussian_ranks(values)
    scaled = _robustly_scaled(values)
    radius = np.log1p(np.mean(scaled**2, axis=1, keepdims=True))
    features = np.hstack([np.arcsinh(scaled), (radius - radius.mean()) / max(radius.std(), 1e-12)])
    return Coordinates(torch.from_numpy(np.hstack([ranks, features])).float(), ranks.shape[1])


def gaussian_ranks(values: Array) -> Array:
    """Map each column to standard normal quantiles of its ranks; ties get the mean rank.

    Source: van der Waerden 1952 (normal scores).

    Args:
        values: (n, D).

    Returns:
        (n, D), without the order of magnitude of the values: invariant to increasing maps of a column.

    Example:
        >>> gaussian_ranks(np.array([[10.0], [-1.0], [1e6]])).ravel()
        array([ 0.        , -0.96742157,  0.96742157])
    """
    uniform = (np.apply_along_axis(_mean_ranks, 0, values) - 0.5) / len(values)
    quantiles: Array = torch.special.ndtri(torch.from_numpy(uniform)).numpy()
    return quantiles


def _mean_ranks(column: Array) -> Array:
    """(n,) ranks from 1 to n; equal values get their mean rank."""
    _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2)[inverse]
    return ranks


def _robustly_scaled(values: Array) -> Array:
    """(n, D) values, centered at the median and divided by the interquartile range in normal units."""
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    scale = (upper - lower) / 1.349  # the interquartile range of a standard normal variable
    scale = np.where(scale > 0, scale, np.maximum(values.std(axis=0), 1e-12))
    scaled: Array = (values - median) / scale
    return scaled
