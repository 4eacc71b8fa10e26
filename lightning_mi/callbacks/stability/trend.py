"""Whether a series moves, and how fast: Mann and Kendall's test, Theil and Sen's slope."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Trend(NamedTuple):
    """The trend of a series.

    Attributes:
        rate: The median of the slopes between all pairs of points, in units of value per unit of time.
        z: Mann and Kendall's statistic: standard normal for independent values without a trend, whatever their law.
    """

    rate: float
    z: float


def trend(times: NDArray[Any], values: NDArray[Any]) -> Trend:
    r"""Slope and significance from the signs of the differences of all pairs, so that no outlier decides.

    The variance of the count of signs is multiplied by :math:`(1 + r) / (1 - r)`, r being the lag-1 autocorrelation of
    what is left once the slope is taken out, where that is positive: values that depend on their neighbors would
    otherwise pass for a trend too often.

    Args:
        times: (B,) increasing.
        values: (B,) finite, at least three of them.

    Source: Mann 1945; Kendall 1975; Sen 1968; the correction for autocorrelation, Bayley and Hammersley 1946.

    Example:
        >>> trend(np.arange(10.0), 3.0 * np.arange(10.0))
        Trend(rate=3.0, z=3.9354...)
    """
    count = len(values)
    first, second = np.triu_indices(count, k=1)
    differences = values[second] - values[first]
    rate = float(np.median(differences / (times[second] - times[first])))
    score = float(np.sign(differences).sum())
    _, ties = np.unique(values, return_counts=True)
    variance = (count * (count - 1) * (2 * count + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    variance *= _inflation(values - rate * times)
    # One less: the count of signs moves in steps of two (the continuity correction).
    z = math.copysign(max(abs(score) - 1, 0.0), score) / math.sqrt(variance) if variance > 0 else 0.0
    return Trend(rate, z)


def _inflation(residuals: NDArray[Any]) -> float:
    centered = residuals - residuals.mean()
    total = float(centered @ centered)
    if total <= 1e-12 * max(float(residuals @ residuals), 1.0):
        return 1.0
    lag_1 = float(centered[1:] @ centered[:-1]) / total
    return (1 + lag_1) / (1 - lag_1) if 0 < lag_1 < 1 else 1.0
