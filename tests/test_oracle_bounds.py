"""Every bound with the exact critic on 20-dimensional Gaussian pairs, in float64.

Each term against the independent NumPy reference on the same samples, and means over batches against values that were
measured with other samples and other code (400 batches of 64, 200 of 256).
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch

from lightning_mi import Scores, bounds
from tests.helpers import reference
from tests.helpers.reference import Sheet
from tests.helpers.specs import BOUNDS, BoundSpec, by_name

DIM, LEVELS = 20, (2.0, 6.0, 10.0)
BATCHES = {64: 100, 256: 30}
MEASURED_BATCHES = {64: 400, 256: 200}
SPECS = [spec for spec in BOUNDS if not spec.has_learned_baseline]


@cache
def log_ratios(mi: float, n: int) -> np.ndarray:
    """(batches, n, n) exact log density ratios of every x with every y of its batch."""
    rng = np.random.default_rng(n)
    rho = np.sqrt(1 - np.exp(-2 * mi / DIM))
    x = rng.normal(size=(BATCHES[n], n, DIM))
    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=x.shape)
    squares = (x**2).sum(-1)[:, :, None] + (y**2).sum(-1)[:, None, :]
    return mi - (rho**2 * squares - 2 * rho * x @ y.swapaxes(1, 2)) / (2 * (1 - rho**2))


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("spec", SPECS, ids=by_name)
def test_terms_equal_numpy_on_the_same_samples(spec: BoundSpec, n: int) -> None:
    eye = np.eye(n, dtype=bool)
    for mi in LEVELS:
        for t in log_ratios(mi, n)[:2] + spec.optimum:
            terms, expected = spec.make()(Scores.from_matrix(torch.tensor(t))), spec.reference(Sheet(t, eye, ~eye))
            for name, term in terms._asdict().items():
                assert term.item() == pytest.approx(getattr(expected, name), rel=1e-9, abs=1e-9), name


def limit(scores: Scores) -> float:
    return bounds.jensen_shannon_limit(bounds.gan_objective(scores)).value.item()


def term_of(bound: bounds.AbstractBound, name: str, scores: Scores) -> float:
    return getattr(bound(scores), name).item()


# By batch size: mean and standard deviation over batches at 2, 6 and 10 nats.
PLUG_IN = {64: [(2.02, 0.24), (6.03, 0.38), (10.03, 0.44)], 256: [(2.00, 0.13), (6.00, 0.21), (9.99, 0.24)]}
INFONCE = {64: [(1.83, 0.20), (3.75, 0.13), (4.12, 0.04)], 256: [(1.94, 0.12), (4.61, 0.10), (5.43, 0.04)]}
MEASURED: dict[str, tuple[Callable[[Scores], float], dict[int, list[tuple[float, float]]]]] = {
    "Hellinger": (partial(term_of, bounds.Hellinger(), "value"), PLUG_IN),
    "RPC": (partial(term_of, bounds.RPC(), "value"), PLUG_IN),
    "JS, plug-in": (lambda scores: bounds.JS().plug_in(bounds.JS()(scores).joint_term).item(), PLUG_IN),
    "NCE, plug-in": (lambda scores: bounds.NCE().plug_in(bounds.NCE()(scores).joint_term).item(), PLUG_IN),
    "InfoNCE": (partial(term_of, bounds.InfoNCE(), "value"), INFONCE),
    "DCL": (partial(term_of, bounds.DCL(), "value"), INFONCE),
    "DCL, objective": (
        partial(term_of, bounds.DCL(), "objective"),
        {64: [(2.18, 0.25), (7.89, 0.52), (16.34, 0.89)], 256: [(2.06, 0.13), (7.00, 0.24), (14.06, 0.38)]},
    ),
    "Hellinger, objective": (
        partial(term_of, bounds.Hellinger(), "objective"),
        {64: [(0.83, 0.11), (1.67, 0.12), (1.92, 0.06)], 256: [(0.83, 0.05), (1.67, 0.04), (1.92, 0.02)]},
    ),
    "RPC, objective": (
        partial(term_of, bounds.RPC(), "objective"),
        {64: [(10.29, 3.05), (58.85, 6.71), (88.71, 4.54)], 256: [(10.08, 1.50), (58.17, 2.66), (88.34, 1.57)]},
    ),
    "Jensen-Shannon limit": (
        limit,
        {64: [(1.26, 0.17), (3.41, 0.34), (5.62, 0.62)], 256: [(1.24, 0.09), (3.35, 0.18), (5.47, 0.32)]},
    ),
}


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("name", MEASURED)
def test_means_over_batches_equal_measured_ones(name: str, n: int) -> None:
    read, measured = MEASURED[name]
    for mi, (mean, deviation) in zip(LEVELS, measured[n], strict=True):
        values = [read(Scores.from_matrix(torch.tensor(t))) for t in log_ratios(mi, n)]
        error = deviation * np.sqrt(1 / BATCHES[n] + 1 / MEASURED_BATCHES[n])
        assert np.mean(values) == pytest.approx(mean, abs=4 * error + 0.005)  # rounded to two digits


@pytest.mark.parametrize("n", BATCHES)
def test_jensen_shannon_limit_equals_numpy_and_is_a_lower_limit(n: int) -> None:
    eye = np.eye(n, dtype=bool)
    for mi in LEVELS:
        values = []
        for t in log_ratios(mi, n)[:20]:
            objective = reference.gan_objective(Sheet(t, eye, ~eye))[0]
            values.append(limit(Scores.from_matrix(torch.tensor(t))))
            q = np.exp(-values[-1])
            assert -objective == pytest.approx((1 + q) * np.log1p(q) - q * np.log(q), rel=1e-9)
        assert np.mean(values) < mi
