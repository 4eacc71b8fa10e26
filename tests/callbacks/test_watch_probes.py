"""Probes, whitening and samples of InformationPlane and MIMonitor."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from lightning_mi.callbacks.watch.probes import CriticProbe, LabelProbe, fit_probe
from lightning_mi.callbacks.watch.reading import read_pair
from lightning_mi.callbacks.watch.report import plane_figure, reading_table
from lightning_mi.callbacks.watch.samples import RecentBatches
from lightning_mi.callbacks.watch.whitening import MAX_COMPONENTS, fit_whitening
from lightning_mi.exceptions import MIWarning


def classes(num, seed, distance=1.5):
    """Gaussian clusters of three classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, num, p=[0.5, 0.3, 0.2])
    x = rng.normal(size=(num, 4)) + distance * np.eye(3, 4)[labels]
    return torch.tensor(x).float(), torch.tensor(labels)


def exact(x, labels, distance=1.5):
    """H(Y) minus the cross entropy of the exact posterior, float64."""
    prior, x = np.array([0.5, 0.3, 0.2]), x.double().numpy()
    means = distance * np.eye(3, 4)
    log_posterior = log_softmax(np.log(prior) - ((x[:, None] - means) ** 2).sum(2) / 2, axis=1)
    law = np.bincount(labels) / len(labels)
    return -(law * np.log(law)).sum() + log_posterior[np.arange(len(x)), labels].mean()


def test_label_probe_reads_entropy_minus_cross_entropy():
    probe = LabelProbe(4, 3, hidden=8)
    x, labels = classes(200, 0)
    logits = log_softmax(probe.head(x).detach().double().numpy(), axis=1)
    law = np.bincount(labels) / len(labels)
    pointwise = logits[np.arange(200), labels] - np.log(law[labels])
    read = probe.read(x, labels)
    assert float(read.value) == pytest.approx(pointwise.mean(), abs=1e-6)
    assert float(read.standard_error) == pytest.approx(pointwise.std(ddof=1) / np.sqrt(200), rel=1e-5)


def test_readings_approach_the_exact_posterior():
    held_out = classes(2000, 1)
    reading = read_pair(classes(2000, 0), held_out, noise=0.0, hidden=32, seed=0)
    truth = exact(*held_out)
    assert reading.value == pytest.approx(truth, abs=0.03)
    assert reading.value < truth + 3 * reading.standard_error


def test_readings_do_not_depend_on_the_global_generator():
    rows = classes(300, 0), classes(200, 1)
    first = read_pair(*rows, noise=0.1, hidden=8, seed=0)
    torch.manual_seed(77)
    assert read_pair(*rows, noise=0.1, hidden=8, seed=0) == first


def test_cross_fitting_reads_what_fitting_does():
    rows = classes(2000, 0)
    crossed = read_pair(None, rows, noise=0.0, hidden=8, seed=0)
    assert crossed.value == pytest.approx(exact(*rows), abs=0.04)
    assert crossed.num_fitted == 1500


def test_gap_shows_a_probe_that_learned_its_samples_by_heart():
    x, labels = torch.randn(100, 50), torch.arange(100) % 2
    reading = read_pair((x, labels), (torch.randn(400, 50), torch.arange(400) % 2), noise=0.0, hidden=64, seed=0)
    assert reading.gap > 0.05
    assert reading.value < 0.02


def test_scores_are_read_in_a_range():
    torch.manual_seed(0)
    x = torch.randn(600, 2)
    probe = fit_probe(CriticProbe(2, 2, hidden=16), x, x + 0.5 * torch.randn(600, 2))
    far = torch.randn(300, 2)
    y = far + 0.5 * torch.randn(300, 2)
    y[0] = 50 * far[1]  # its pairs have enormous scores
    clipped = float(probe.read(far, y).value)
    probe.finish((far, y), (far, y))  # the range is now that of these scores
    assert clipped > float(probe.read(far, y).value) + 1
    assert clipped > 0


def test_too_few_rows_read_nan():
    assert np.isnan(read_pair(classes(3, 0), classes(50, 1), noise=0.0, hidden=4, seed=0).value)


@pytest.mark.parametrize("width", [5, MAX_COMPONENTS + 50])
def test_whitening_gives_components_of_unit_variance(width):
    torch.manual_seed(0)
    rows = torch.randn(2000, width, dtype=torch.float64) * torch.linspace(3.0, 1.0, width) + 7.0
    white = fit_whitening(rows.float())(rows.float()).double().numpy()
    assert white.shape == (2000, min(width, MAX_COMPONENTS))
    exact = width <= MAX_COMPONENTS
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(white.shape[1]), atol=5e-3 if exact else 0.06)


def test_whitening_leaves_constant_and_tiny_features_small():
    rows = torch.randn(500, 3) * torch.tensor([1.0, 1e-3, 0.0])
    white = fit_whitening(rows)(rows)
    assert white.isfinite().all()
    assert sorted(white.std(dim=0).tolist()) == pytest.approx([0.0, 0.01, 1.0], abs=2e-3)
    assert fit_whitening(torch.ones(10, 2))(torch.ones(10, 2)).tolist() == [[0.0, 0.0]] * 10


def test_recent_batches_keep_the_newest():
    recent = RecentBatches()
    for value in range(5):
        recent.append({"meta": ["a"], "x": torch.full((4, 2), value)}, num_samples=10)
    assert [int(batch["x"][0, 0]) for batch in recent.batches] == [2, 3, 4]


def test_batches_of_other_objects_have_no_state():
    recent = RecentBatches()
    recent.append({"x": torch.zeros(2), "object": object()}, num_samples=4)
    assert recent.state() is None


def test_table_and_figure_show_the_readings():
    reading = read_pair(classes(100, 0), classes(100, 1), noise=0.0, hidden=4, seed=0)
    assert f"{reading.value:.2f}" in reading_table({"plane/a/label": reading})
    figure = plane_figure({"a": [(1, reading), (2, reading)]}, {"a": [(1, reading), (2, reading)]}, noise=0.1)
    drawn = [line.get_ydata() for line in figure.axes[0].lines]
    np.testing.assert_allclose(drawn[0], [reading.value] * 2)
    assert "noise 0.1" in figure.axes[1].get_xlabel()


@pytest.mark.parametrize("cubed", [False, True])
@pytest.mark.parametrize(("dim", "mi"), [(2, 2.05), (8, 2.0), (4, 4.0)])
def test_numbers_of_gaussian_information_read_the_truth(dim, mi, cubed):
    torch.manual_seed(7)
    rho = (1 - math.exp(-2 * mi / dim)) ** 0.5
    x = torch.randn(4096, dim)
    y = rho * x + (1 - rho**2) ** 0.5 * torch.randn(4096, dim)
    y = y**3 if cubed else y
    read = read_pair((x[:2048], y[:2048]), (x[2048:], y[2048:]), noise=0.0, hidden=64, seed=0)
    assert abs(read.value - mi) < 0.1 + 3 * read.standard_error
    assert read.standard_error < 0.05


def test_information_beyond_the_limit_reads_at_most_the_limit():
    torch.manual_seed(7)
    x = torch.randn(2000, 32)
    read = read_pair((x[:1000], x[:1000]), (x[1000:], x[1000:]), noise=0.1, hidden=64, seed=0)
    assert read.limit - 0.1 < read.value <= read.limit + 1e-9


def test_standard_error_is_the_deviation_over_samples():
    torch.manual_seed(0)
    x = torch.randn(2000, 2)
    probe = fit_probe(CriticProbe(2, 2, hidden=0), x, x + torch.randn(2000, 2))
    reads = []
    for _ in range(200):
        x = torch.randn(256, 2)
        reads.append(probe.read(x, x + torch.randn(256, 2)))
    deviation = float(torch.stack([read.value for read in reads]).std())
    error = float(torch.stack([read.standard_error for read in reads]).mean())
    assert error == pytest.approx(deviation, rel=0.2)  # 200 draws: 5 % standard error


def test_linear_probe_of_numbers_reads_the_gaussian_part():
    torch.manual_seed(7)
    x = torch.randn(2000, 3)
    read = read_pair((x[:1000], 2 * x[:1000]), (x[1000:], 2 * x[1000:]), noise=1.0, hidden=0, seed=0)
    assert read.value == pytest.approx(1.5 * math.log(2), abs=0.1)


def test_labels_without_fitted_samples_warn():
    x, labels = torch.randn(100, 2), torch.arange(100) % 2
    with pytest.warns(MIWarning, match="Got 50 of 100 held-out samples with a label that no fitted sample has"):
        read_pair((x, 0 * labels), (x, labels), noise=0.0, hidden=0, seed=0)


def test_rows_with_lost_variance_warn():
    rows = torch.randn(600, 4 * MAX_COMPONENTS)
    with pytest.warns(MIWarning, match=r"Got rows of 1024 numbers: .* principal components, which hold \d\d%"):
        fit_whitening(rows)
