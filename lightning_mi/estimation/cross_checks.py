"""Other estimates of the same MI, to compare with."""

import math
import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lightning_mi.estimation.coordinates import RankCoordinates
from lightning_mi.estimation.inputs import Variable

_MAX_COLUMNS = 0.25  # of n: with more, the covariance is mostly noise
_MAX_KSG = 10_000  # samples; the cost of neighbors grows with n log n


def cross_checks(x: Variable, y: Variable) -> dict[str, float]:
    """Estimates by name, nats: ``gaussian_copula``, if defined, and, of one column each, ``nearest_neighbors``."""
    checks = {}
    x_ranks, y_ranks = (RankCoordinates(variable.values).ranks(variable.values) for variable in (x, y))
    num_columns = x_ranks.shape[1] + y_ranks.shape[1]
    if x.kind != "discrete" and y.kind != "discrete" and num_columns < _MAX_COLUMNS * len(x_ranks):
        checks["gaussian_copula"] = gaussian_copula(x_ranks, y_ranks)
    if x_ranks.shape[1] == y_ranks.shape[1] == 1:
        checks["nearest_neighbors"] = nearest_neighbors(x, y, x_ranks, y_ranks)
    return {name: check for name, check in checks.items() if not math.isnan(check)}


def reads_higher(checks: Mapping[str, float], value: float, standard_error: float, n: int) -> list[str]:
    """The names of the checks that read clearly more than a value, and than 0; nats.

    Args:
        checks: Other estimates by name; their own error from n samples is about 1 / sqrt(n).
        value: The estimate.
        standard_error: Its standard error.
        n: The number of samples.
    """
    margin = max(3 * standard_error, 0.05 * abs(value), 1 / math.sqrt(n))
    return [name for name, check in checks.items() if check > max(value, 0.0) + margin]


def conditional_cross_checks(x: Variable, y: Variable, z: Variable) -> dict[str, float]:
    """``gaussian_copula`` of I(x; y | z) by the chain rule, nats; none for labels, or if one determines another."""
    if "discrete" in (x.kind, y.kind, z.kind):
        return {}
    x_ranks, y_ranks, z_ranks = (RankCoordinates(variable.values).ranks(variable.values) for variable in (x, y, z))
    value = gaussian_copula(x_ranks, np.hstack([y_ranks, z_ranks])) - gaussian_copula(x_ranks, z_ranks)
    return {} if math.isnan(value) else {"gaussian_copula": max(value, 0.0)}


def gaussian_copula(x_ranks: NDArray[np.float64], y_ranks: NDArray[np.float64]) -> float:
    """MI of the Gaussian with the covariance of the ranks, minus its bias to first order, Dx Dy / 2n; nats.

    It misses any other dependence.

    Source: Ince et al. 2017.

    Args:
        x_ranks: (n, Dx).
        y_ranks: (n, Dy).
    """
    joint = np.hstack([x_ranks, y_ranks])
    n, x_dim = x_ranks.shape
    covariance = np.cov(joint.T)
    log_det = [np.linalg.slogdet(block)[1] for block in (covariance[:x_dim, :x_dim], covariance[x_dim:, x_dim:])]
    with np.errstate(invalid="ignore"):  # of a constant column, or one that others determine: NaN
        value = 0.5 * (sum(log_det) - np.linalg.slogdet(covariance)[1]) - x_dim * y_ranks.shape[1] / (2 * n)
    return float(max(value, 0.0)) if np.isfinite(value) else float("nan")


def nearest_neighbors(x: Variable, y: Variable, x_ranks: NDArray[np.float64], y_ranks: NDArray[np.float64]) -> float:
    """Estimate of scikit-learn by nearest neighbors, of one column each; nats.

    Source: Kraskov et al. 2004; Ross 2014 (one discrete variable).
    """
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression  # half a second

    rows = np.linspace(0, len(x_ranks) - 1, min(len(x_ranks), _MAX_KSG)).astype(int)
    features, discrete = x_ranks[rows], x.kind == "discrete"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if y.kind == "discrete":
            value = mutual_info_classif(features, y.labels[rows], discrete_features=discrete, random_state=0)
        else:
            value = mutual_info_regression(features, y_ranks[rows, 0], discrete_features=discrete, random_state=0)
    return float(value[0])
