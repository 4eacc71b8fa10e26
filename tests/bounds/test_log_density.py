"""Bounds of log-densities on the 20-dimensional Gaussian with its exact conditional, and with others."""

import itertools
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp
from scipy.stats import norm

from lightning_mi import MILoss, Scores, bounds, critics, pairs, regularizers
from lightning_mi.metrics import MutualInformation
from tests.helpers.law import COUNTS, JOINT, LOG_DENSITY, MI

DIM = 20
ENTROPY = DIM * norm.entropy()  # of y, nats
CASES = list(itertools.product((2.0, 6.0, 10.0), (64, 256)))
BATCHES = {64: 100, 256: 5}


class Batch(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    log_density: np.ndarray  # log p(y_j | x_i) in row i and column j


def rho_of(mi: float) -> float:
    return float(np.sqrt(-np.expm1(-2 * mi / DIM)))


@cache
def batches(mi: float, n: int) -> list[Batch]:
    rng, rho = np.random.default_rng(0), rho_of(mi)
    made = []
    for _ in range(BATCHES[n]):
        x = rng.normal(size=(n, DIM))
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=x.shape)
        squares = ((y - rho * x[:, None]) ** 2).sum(-1) / (1 - rho**2)
        made.append(Batch(x, y, -0.5 * (squares + DIM * np.log(2 * np.pi * (1 - rho**2)))))
    return made


def exact(mi: float) -> critics.GaussianConditional:
    rho = rho_of(mi)
    return critics.GaussianConditional.linear(rho * torch.eye(DIM, dtype=torch.float64), 1 - rho**2)


def without_diagonal(t: np.ndarray) -> np.ndarray:
    return np.where(np.eye(len(t), dtype=bool), -np.inf, t)


def others(t: np.ndarray) -> np.ndarray:
    """(N,) log-mean-exp over the other x of each y."""
    return logsumexp(without_diagonal(t), axis=0) - np.log(len(t) - 1)


Reference = Callable[[np.ndarray], float]
ORACLES: dict[str, tuple[bounds.AbstractBound, Reference]] = {
    "BA": (bounds.BA(ENTROPY), lambda t: ENTROPY + t.diagonal().mean()),
    "CLUB": (bounds.CLUB(), lambda t: t.diagonal().mean() - t.mean()),
    "L1Out": (bounds.L1Out(), lambda t: (t.diagonal() - others(t)).mean()),
    "InfoNCE": (bounds.InfoNCE(), lambda t: (t.diagonal() - logsumexp(t, axis=0) + np.log(len(t))).mean()),
}


@cache
def readings(name: str, mi: float, n: int) -> np.ndarray:
    return np.array([ORACLES[name][1](batch.log_density) for batch in batches(mi, n)])


@pytest.mark.parametrize(("mi", "n"), CASES)
@pytest.mark.parametrize("name", ORACLES)
def test_value_equals_numpy_on_the_same_samples(name: str, mi: float, n: int) -> None:
    bound, critic, expected = ORACLES[name][0], exact(mi), readings(name, mi, n)
    metric = MutualInformation(bound)
    for batch, value in zip(batches(mi, n)[:10], expected, strict=False):
        scores = pairs.AllPairs()(critic, torch.tensor(batch.x), torch.tensor(batch.y))
        terms = bound(scores)
        assert terms.value.item() == pytest.approx(value, abs=1e-9)
        metric.update(terms, scores)
    assert metric.compute().item() == pytest.approx(expected[:10].mean(), abs=1e-9)


@pytest.mark.parametrize(("mi", "n"), CASES)
def test_sampled_club_equals_numpy_on_the_same_permutation(mi: float, n: int) -> None:
    batch = batches(mi, n)[0]
    scores = pairs.Derangement()(exact(mi), torch.tensor(batch.x), torch.tensor(batch.y))
    columns = np.abs(batch.log_density[:, None] - scores.marginal_values().numpy()[:, None, None]).min(axis=1)
    order = columns.argmin(axis=1)
    assert sorted(order) == list(range(n))
    expected = batch.log_density.diagonal().mean() - batch.log_density[np.arange(n), order].mean()
    assert bounds.CLUBSample()(scores).value.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("mi", "n"), CASES)
def test_rate_of_the_exact_conditional_is_the_closed_form(mi: float, n: int) -> None:
    """The variational upper bound with the exact marginal."""
    rho, x = rho_of(mi), batches(mi, n)[0].x
    marginal = critics.DiagonalGaussian(torch.zeros(1, DIM).double(), torch.zeros(1, DIM).double())
    observed = exact(mi).given(torch.tensor(x)).kl(marginal).mean().item()
    expected = 0.5 * (1 - rho**2 + (rho * x) ** 2 - 1 - np.log(1 - rho**2)).sum(1).mean()
    assert observed == pytest.approx(expected, abs=1e-9)
    assert observed == pytest.approx(mi, abs=4 * DIM**0.5 / (2 * n) ** 0.5)


# Means and standard deviations of batches, measured once with other samples.
KNOWN = [
    ("CLUB", 64, 2.0, 4.38, 0.31),
    ("CLUB", 64, 6.0, 16.25, 0.80),
    ("CLUB", 64, 10.0, 33.94, 1.48),
    ("L1Out", 64, 2.0, 2.18, 0.25),
    ("L1Out", 64, 6.0, 7.88, 0.52),
    ("L1Out", 64, 10.0, 16.33, 0.90),
    ("L1Out", 256, 10.0, 14.07, 0.39),
    ("InfoNCE", 64, 10.0, 4.12, 0.04),
    ("BA", 64, 10.0, 9.99, 0.39),
]


@pytest.mark.parametrize(("name", "n", "mi", "expected", "deviation"), KNOWN)
def test_mean_over_batches_equals_the_known_one(
    name: str, n: int, mi: float, expected: float, deviation: float
) -> None:
    error = deviation * np.sqrt(1 / BATCHES[n] + 1 / (400 if n == 64 else 200))
    assert readings(name, mi, n).mean() == pytest.approx(expected, abs=4 * error + 0.005)


@pytest.mark.parametrize(("mi", "n"), CASES)
def test_sandwich_encloses_the_mutual_information(mi: float, n: int) -> None:
    batch = batches(mi, n)[0]
    lower, upper = bounds.sandwich(pairs.AllPairs()(exact(mi), torch.tensor(batch.x), torch.tensor(batch.y)))
    assert lower.item() == pytest.approx(readings("InfoNCE", mi, n)[0], abs=1e-9)
    assert upper.item() == pytest.approx(readings("L1Out", mi, n)[0], abs=1e-9)
    if mi > 2:
        assert lower < mi < upper


def expectation(bound: bounds.AbstractBound, log_density: np.ndarray) -> float:
    """The exact expectation over all batches of three pairs of the discrete law; x is the modelled variable."""
    atoms, total = np.argwhere(COUNTS), 0.0
    for batch in itertools.product(range(9), repeat=3):
        x, y = atoms[list(batch)].T
        scores = Scores.from_matrix(torch.tensor(log_density[x[:, None], y]))
        total += JOINT[x, y].prod() * bound(scores).value.item()
    return total


@pytest.mark.parametrize("bound", [bounds.L1Out(), bounds.CLUBSample()], ids=["L1Out", "CLUBSample"])
def test_upper_bound_is_one_only_with_the_exact_density(bound: bounds.AbstractBound) -> None:
    assert bound.is_upper_bound
    assert not bound.is_lower_bound
    assert expectation(bound, LOG_DENSITY) > MI + 1e-3
    flat = log_softmax(0.1 * LOG_DENSITY, axis=0)  # a density that is behind
    assert expectation(bound, flat) < MI - 1e-3


def test_club_is_two_thirds_of_sampled_club_on_three_pairs() -> None:
    sampled = expectation(bounds.CLUBSample(), LOG_DENSITY)
    assert expectation(bounds.CLUB(), LOG_DENSITY) == pytest.approx(2 / 3 * sampled, abs=1e-12)


def test_classification_is_barber_and_agakov_of_the_softmax() -> None:
    logits, labels = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 4
    classifier = bounds.InfoNCE()(pairs.EnumeratedLabels(4, "uniform")(critics.LabelCritic(), logits, labels))
    log_density = torch.log_softmax(logits, dim=1)
    joint = torch.nn.functional.one_hot(labels, 4).bool()
    density = bounds.BA(np.log(4))(Scores.from_matrix(log_density, joint=joint))
    assert classifier.value.item() == pytest.approx(density.value.item(), abs=1e-12)


def test_training_maximizes_the_likelihood() -> None:
    """The conditional of a linear channel is found, and the sandwich then encloses the mutual information."""
    torch.manual_seed(0)
    rho, dim = 0.8, 3
    critic = critics.GaussianConditional(torch.nn.Linear(dim, 2 * dim))
    loss = MILoss(critic, bounds.L1Out())
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.03)
    for _ in range(300):
        x = torch.randn(128, dim)
        optimizer.zero_grad()
        loss(x, rho * x + (1 - rho**2) ** 0.5 * torch.randn(128, dim)).backward()
        optimizer.step()
    density = critic.given(torch.ones(1, dim))
    torch.testing.assert_close(density.mean, torch.full((1, dim), rho), rtol=0, atol=0.1)
    torch.testing.assert_close(density.log_variance.exp(), torch.full((1, dim), 1 - rho**2), rtol=0, atol=0.1)


def test_bound_of_log_densities_needs_such_a_critic() -> None:
    calibrated = critics.CalibratedCritic(critics.GaussianConditional(torch.nn.Linear(2, 4)))
    for critic in (critics.InnerProductCritic(), calibrated):
        with pytest.raises(ValueError, match=r"Got \w+ for CLUB: this bound needs log-densities.*GaussianConditional"):
            MILoss(critic, bounds.CLUB())


def test_regularizer_of_log_densities_is_an_error() -> None:
    with pytest.raises(ValueError, match="Got Squared for BA: log-densities are normalized"):
        MILoss(critics.GaussianConditional(torch.nn.Linear(2, 4)), bounds.BA(1.0), regularizer=regularizers.Squared())


def test_entropy_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Got entropy=nan: .*H\(Y\) in nats"):
        bounds.BA(float("nan"))


@pytest.mark.parametrize("bound", [bounds.L1Out(), bounds.CLUB(), bounds.sandwich])
def test_lists_of_pairs_are_an_error(bound: Callable[[Scores], object]) -> None:
    with pytest.raises(ValueError, match=r"Got two lists of pairs.*AllPairs"):
        bound(Scores.from_samples(torch.zeros(3), torch.zeros(3)))
