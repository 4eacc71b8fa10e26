"""The methods of the benchmark of arrays: this package's estimate, and classical estimates in a few lines."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_mi.bench.arrays.tasks import Sample
from lightning_mi.estimation.coordinates import RankCoordinates
from lightning_mi.estimation.cross_checks import gaussian_copula
from lightning_mi.estimation.options import PLANS, Budget
from lightning_mi.estimation.two_arrays import estimate

_NEIGHBORS = 3  # the default of scikit-learn
_JITTER = 1e-10  # of a standard deviation, as in scikit-learn: ties would have no neighbors at a positive distance


class Reading(NamedTuple):
    """What a method says about one sample, nats.

    Attributes:
        mi: The estimate.
        lower: The lower confidence limit; None for a method without one.
        upper: The upper end of the interval; None for a method without one.
        p_value: Of independence; None for a method without a test.
        findings: Codes of the findings.
    """

    mi: float
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None
    findings: tuple[str, ...] = ()


class Method(NamedTuple):
    """A method that runs in this process.

    Attributes:
        read: Takes a sample and a seed.
        applies: Whether it is defined for samples like this one.
        settings: What determines its result beside sample and seed, for the digest of a cell.
    """

    read: Callable[[Sample, int], Reading]
    applies: Callable[[Sample], bool] = lambda sample: True
    settings: str = ""


def _estimate(sample: Sample, seed: int, *, budget: Budget) -> Reading:
    x_labels, y_labels = sample.labels
    # Numbers are left to the detection of estimate: a law may have whole numbers or frequent values.
    discrete = {name: True for name, labels in (("x", x_labels), ("y", y_labels)) if labels}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the findings contain what a warning would say
        result = estimate(sample.x, sample.y, discrete=discrete, budget=budget, seed=seed)
    codes = tuple(finding.code for finding in result.findings)
    return Reading(result.mi, result.lower, result.upper, result.p_value, codes)


def _copula(sample: Sample, seed: int) -> Reading:
    """Gaussian copula: the MI of the Gaussian with the covariance of the ranks."""
    x, y = (RankCoordinates(side).ranks(side) for side in sample.columns)
    return Reading(gaussian_copula(x, y))


def _cca(sample: Sample, seed: int) -> Reading:
    """Canonical correlation analysis: the MI of the Gaussian with the covariance of the samples."""
    bases = [_orthonormal(side) for side in sample.columns]
    correlations = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).clip(max=1.0)
    with np.errstate(divide="ignore"):
        return Reading(float(-0.5 * np.log1p(-np.square(correlations)).sum()))


def _orthonormal(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, R) orthonormal basis of the centered columns of rank R."""
    left, values, _ = np.linalg.svd(columns - columns.mean(axis=0), full_matrices=False)
    rank = int((values > values[0] * max(columns.shape) * np.finfo(np.float64).eps).sum())
    return left[:, :rank]


def _nearest_neighbors(sample: Sample, seed: int) -> Reading:
    """Nearest neighbors: scikit-learn's estimate of one column each, otherwise the same algorithm in D dimensions.

    Source: Kraskov et al. 2004, equation 8; Ross 2014 (one discrete variable).
    """
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression  # half a second

    x_labels, y_labels = sample.labels
    if not _one_column_each(sample):
        return Reading(_neighbors_of_columns(*sample.columns, np.random.default_rng(seed)))
    function = mutual_info_classif if y_labels else mutual_info_regression
    options: dict[str, Any] = {"discrete_features": x_labels, "n_neighbors": _NEIGHBORS, "random_state": seed}
    return Reading(float(function(sample.x.reshape(-1, 1), sample.y.ravel(), **options)[0]))


def _neighbors_of_columns(x: NDArray[np.float64], y: NDArray[np.float64], rng: np.random.Generator) -> float:
    from scipy.special import digamma  # comes with scikit-learn
    from sklearn.neighbors import KDTree, NearestNeighbors

    n = len(x)
    sides = [side / side.std(axis=0) + _JITTER * rng.normal(size=side.shape) for side in (x, y)]
    neighbors = NearestNeighbors(n_neighbors=_NEIGHBORS, metric="chebyshev").fit(np.hstack(sides))
    radius = np.nextafter(neighbors.kneighbors()[0][:, -1], 0)  # strictly closer than the k-th neighbor
    counts = [KDTree(side, metric="chebyshev").query_radius(side, radius, count_only=True) for side in sides]
    psi = sum(digamma(count).mean() for count in counts)  # a count contains the sample itself
    return max(0.0, float(digamma(n) + digamma(_NEIGHBORS) - psi))


def _one_column_each(sample: Sample) -> bool:
    return all(side.ndim == 1 or side.shape[1] == 1 for side in sample)


def _two_numbers(sample: Sample) -> bool:
    return not any(sample.labels)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        **{
            f"estimate-{budget}": Method(partial(_estimate, budget=budget), settings=repr(plan))
            for budget, plan in PLANS.items()
        },
        "nearest-neighbors": Method(
            _nearest_neighbors, lambda sample: _two_numbers(sample) or _one_column_each(sample), f"k={_NEIGHBORS}"
        ),
        "gaussian-copula": Method(_copula, _two_numbers),
        "cca": Method(_cca, _two_numbers),
    }
)
