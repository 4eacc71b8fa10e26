"""The exact critic on the 20-dimensional Gaussian: each bound equals the truth within its known bias.

400 batches of 64 pairs at 2 and 10 nats. Tolerances are 4 standard errors; expected values at 10 nats were
measured with other samples, so the errors of both measurements count.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from lightning_mi import Scores, bounds
from lightning_mi.metrics import MutualInformation

BATCHES, N, DIM = 400, 64, 20
LEVELS = (2.0, 10.0)
EYE = np.eye(N, dtype=bool)


@cache
def log_ratio(mi: float) -> np.ndarray:
    """(400, 64, 64) exact log density ratios of every x with every y of its batch, rounded to float32."""
    rng = np.random.default_rng(0)
    rho = np.sqrt(1 - np.exp(-2 * mi / DIM))
    x = rng.normal(size=(BATCHES, N, DIM))
    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=x.shape)
    squares = (x**2).sum(-1)[:, :, None] + (y**2).sum(-1)[:, None, :]
    quadratic = (rho**2 * squares - 2 * rho * x @ y.swapaxes(1, 2)) / (2 * (1 - rho**2))
    return (mi - quadratic).astype(np.float32).astype(np.float64)


def joint(t: np.ndarray) -> np.ndarray:
    return t[:, EYE].mean(axis=1)


def log_mean_exp(t: np.ndarray) -> np.ndarray:
    return logsumexp(t[:, ~EYE], axis=1) - np.log(N * (N - 1))


# The joint and the marginal term of each batch. The critic is the log-ratio plus `shift`.
ORACLES: dict[str, tuple[bounds.AbstractBound, float, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]] = {
    "DV": (bounds.DV(), 0.0, lambda t: (joint(t), log_mean_exp(t))),
    "MINE": (bounds.MINE(), 3.0, lambda t: (joint(t), log_mean_exp(t))),
    "SMILE": (bounds.SMILE(tau=5.0), 0.0, lambda t: (joint(t), log_mean_exp(np.clip(t, -5, 5)))),
    "InfoNCE": (bounds.InfoNCE(), 0.0, lambda t: (joint(t), (logsumexp(t, axis=2) - np.log(N)).mean(axis=1))),
    "NWJ": (bounds.NWJ(), 1.0, lambda t: (joint(t), np.exp(log_mean_exp(t) - 1))),
    "TUBA": (bounds.TUBA(2.5), np.log(2.5), lambda t: (1 + joint(t) - np.log(2.5), np.exp(log_mean_exp(t)) / 2.5)),
    "JS": (bounds.JS(), 0.0, lambda t: (1 + joint(t), np.exp(log_mean_exp(t)))),
}
LOG_OF_MEAN = ("DV", "MINE", "SMILE")
UNBIASED = ("NWJ", "TUBA", "JS")


def scores_of(name: str, mi: float) -> np.ndarray:
    shift = ORACLES[name][1]
    return (log_ratio(mi) + shift).astype(np.float32).astype(np.float64)


def terms(name: str, mi: float) -> tuple[np.ndarray, np.ndarray]:
    return ORACLES[name][2](scores_of(name, mi))


def micro(name: str, mi: float) -> float:
    joint_terms, marginal_terms = terms(name, mi)
    if name in LOG_OF_MEAN:
        return joint_terms.mean() - (logsumexp(marginal_terms) - np.log(BATCHES))
    return joint_terms.mean() - marginal_terms.mean()


def standard_error(values: np.ndarray) -> float:
    return values.std(ddof=1) / np.sqrt(BATCHES)


@cache
def readings(name: str, mi: float) -> dict[str, float]:
    """The estimates of the package in float32."""
    bound, shift, _ = ORACLES[name]
    target = 0.0 if bound.self_normalized else shift
    metrics = {average: MutualInformation(bound, average, target=target) for average in ("micro", "macro", "plug-in")}
    with torch.no_grad():
        for matrix in torch.tensor(scores_of(name, mi), dtype=torch.float32):
            scores = Scores.from_matrix(matrix)
            batch = bound(scores)
            for metric in metrics.values():
                metric.update(batch, scores)
    return {average: metric.compute().item() for average, metric in metrics.items()}


@pytest.mark.parametrize("mi", LEVELS)
@pytest.mark.parametrize("name", ORACLES)
def test_estimates_equal_numpy_on_the_same_samples(name: str, mi: float) -> None:
    joint_terms, marginal_terms = terms(name, mi)
    observed = readings(name, mi)
    assert observed["macro"] == pytest.approx((joint_terms - marginal_terms).mean(), rel=1e-5)
    assert observed["micro"] == pytest.approx(micro(name, mi), rel=1e-5)
    at_target = 1.0 if name in UNBIASED else ORACLES[name][1]
    assert observed["plug-in"] == pytest.approx((joint_terms - at_target).mean(), rel=1e-5)


@pytest.mark.parametrize("mi", LEVELS)
@pytest.mark.parametrize("name", ORACLES)
def test_plug_in_equals_the_truth(name: str, mi: float) -> None:
    assert readings(name, mi)["plug-in"] == pytest.approx(mi, abs=4 * standard_error(terms(name, mi)[0]))


@pytest.mark.parametrize("mi", LEVELS)
@pytest.mark.parametrize("name", ["DV", "MINE"])
def test_micro_equals_the_truth_and_macro_is_biased_upward(name: str, mi: float) -> None:
    joint_terms, marginal_terms = terms(name, mi)
    relative = np.exp(marginal_terms - marginal_terms.max())
    delta_method = standard_error(joint_terms - relative / relative.mean())
    assert readings(name, mi)["micro"] == pytest.approx(mi, abs=4 * delta_method)
    assert readings(name, mi)["macro"] > readings(name, mi)["micro"]
    if mi > 2:
        assert readings(name, mi)["macro"] > mi + 4 * standard_error(joint_terms - marginal_terms)


@pytest.mark.parametrize("mi", LEVELS)
@pytest.mark.parametrize("name", UNBIASED)
def test_bound_without_a_log_is_unbiased(name: str, mi: float) -> None:
    joint_terms, marginal_terms = terms(name, mi)
    noise = standard_error(joint_terms - marginal_terms)
    assert readings(name, mi)["macro"] == pytest.approx(mi, abs=4 * noise)
    assert readings(name, mi)["macro"] == pytest.approx(readings(name, mi)["micro"], rel=1e-6)
    if mi == 10:
        assert noise > 3 * standard_error(joint_terms), "the tail of the exponential causes the noise"


@pytest.mark.parametrize("mi", LEVELS)
def test_infonce_is_below_log_n_and_below_the_truth(mi: float) -> None:
    joint_terms, marginal_terms = terms("InfoNCE", mi)
    values = joint_terms - marginal_terms
    assert values.max() <= np.log(N)
    assert readings("InfoNCE", mi)["macro"] < mi - 4 * standard_error(values)


def test_smile_is_above_the_truth() -> None:
    joint_terms, marginal_terms = terms("SMILE", 10.0)
    assert readings("SMILE", 10.0)["micro"] > 10 + 4 * standard_error(joint_terms - marginal_terms)


@pytest.mark.parametrize(
    ("name", "average", "expected"),
    [("DV", "macro", 11.27), ("SMILE", "macro", 12.04), ("InfoNCE", "macro", 4.12), ("DV", "plug-in", 10.0)],
)
def test_estimates_at_ten_nats_equal_the_known_ones(name: str, average: str, expected: float) -> None:
    joint_terms, marginal_terms = terms(name, 10.0)
    error = standard_error(joint_terms if average == "plug-in" else joint_terms - marginal_terms)
    tolerance = 4 * np.sqrt(2) * error + 0.005  # the known values are rounded to two digits
    assert readings(name, 10.0)[average] == pytest.approx(expected, abs=tolerance)
