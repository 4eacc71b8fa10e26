"""The Jensen-Shannon limit: against a root finder, and as the smallest divergence of laws on several points."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from lightning_mi import bounds

LIMIT = bounds.jensen_shannon_limit


def objective_of(limit: float) -> float:
    """The objective with this limit, by the definition of the two laws (1, 0) and (q, 1 - q)."""
    q = math.exp(-limit)
    p, other = np.array([1.0, 0.0]), np.array([q, 1 - q])
    return 2 * jensen_shannon(p, other) - 2 * math.log(2)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    middle = (p + q) / 2
    return (kullback_leibler(p, middle) + kullback_leibler(q, middle)) / 2


def kullback_leibler(p: np.ndarray, q: np.ndarray) -> float:
    used = p > 0
    return float((p[used] * np.log(p[used] / q[used])).sum())


@pytest.mark.parametrize("objective", [-1.38, -1.0, -0.5, -0.1, -1e-3, -1e-5])
def test_limit_and_slope_equal_a_root_finder(objective: float) -> None:
    def root(value: float) -> float:
        return brentq(lambda limit: objective_of(limit) - value, 0, 30, xtol=1e-14)

    value, slope = LIMIT(torch.tensor(objective, dtype=torch.float64))
    assert value.item() == pytest.approx(root(objective), abs=1e-9)
    step = 1e-4 * abs(objective)
    expected = (root(objective + step) - root(objective - step)) / (2 * step)
    assert slope.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [2, 3, 10])
def test_no_two_laws_have_a_smaller_divergence(size: int) -> None:
    rng = np.random.default_rng(size)
    for concentration in (0.05, 0.3, 2.0):
        for _ in range(300):
            p, q = rng.dirichlet(np.full(size, concentration), 2) + 1e-12
            limit = LIMIT(torch.tensor(2 * jensen_shannon(p, q) - 2 * math.log(2), dtype=torch.float64)).value.item()
            assert limit <= kullback_leibler(p, q) + 1e-9


def test_objective_without_dependence_gives_zero() -> None:
    value, slope = LIMIT(torch.tensor([-2 * math.log(2), -5.0, -1e4], dtype=torch.float64))
    torch.testing.assert_close(value, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(slope, torch.full((3,), 1 / math.log(2), dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_perfect_classification_is_finite_in_every_dtype(dtype: torch.dtype) -> None:
    value, slope = LIMIT(torch.tensor([0.0, -1e-30], dtype=dtype))
    assert value.isfinite().all()
    assert slope.isfinite().all()
    assert value[0] > value[1] > 68
    assert LIMIT(torch.tensor(math.nan, dtype=dtype)).value.isnan()


def test_limit_is_convex_and_increasing() -> None:
    limits = LIMIT(torch.linspace(-1.3, -0.01, 200, dtype=torch.float64)).value
    steps = limits.diff()
    assert (steps > 0).all()
    assert (steps.diff() > 0).all()
