"""Trend of a series: the Mann-Kendall test and the Theil-Sen slope."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Trend(NamedTuple):
    """The trend of a series.

    Attributes:
        rate: Theil-Sen slope: the median slope over all pairs of points, in units of value per unit of time.
        z: Mann-Kendall statistic: standard normal for independent values without a trend, for any distribution.
    """

    rate: float
    z: float


def trend(times: NDArray[Any], values: NDArray[Any]) -> Trend:
    r"""Robust slope and significance of a series, from the signs of the differences of all pairs.

    .. math:: z = \frac{S - \mathrm{sign}\,S}{\sqrt{\mathrm{Var}\,S}}, \quad
        S = \sum_{i < j} \mathrm{sign}(v_j - v_i), \quad
        \mathrm{Var}\,S = \frac{B (B-1) (2B+5) - \sum_t t (t-1) (2t+5)}{18} \cdot \frac{1 + r}{1 - r}

    where t are the tie counts. r is the lag-1 autocorrelation of the residuals of the Theil-Sen line, or 0 if it is
    negative: without this factor, autocorrelated values would be reported as a trend too often.

    Args:
        times: (B,) increasing.
        values: (B,) finite, B >= 3.

    Source: Mann 1945; Kendall 1975 (ties); Theil 1950 (slope); Sen 1968 (slope); Bayley and Hammersley 1946
        (autocorrelation).

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
    variance *= _variance_inflation(values - rate * times)
    # Continuity correction: the score moves in steps of two.
    z = math.copysign(max(abs(score) - 1, 0.0), score) / math.sqrt(variance) if variance > 0 else 0.0
    return Trend(rate, z)


def _variance_inflation(residuals: NDArray[Any]) -> float:
    centered = residuals - residuals.mean()
    total = float(centered @ centered)
    if total <= 1e-12 * max(float(residuals @ residuals), 1.0):  # constant up to rounding
        return 1.0
    lag_1 = float(centered[1:] @ centered[:-1]) / total
    return (1 + lag_1) / (1 - lag_1) if 0 < lag_1 < 1 else 1.0
