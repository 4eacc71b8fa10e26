"""The Gaussian law against NumPy and SciPy in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from lightning_mi.data import gaussian_log_ratio, gaussian_log_ratio_matrix, gaussian_mi, gaussian_rho


def covariance(rho, dim):
    return np.block([[np.eye(dim), rho * np.eye(dim)], [rho * np.eye(dim), np.eye(dim)]])


@pytest.mark.parametrize(("rho", "dim"), [(-0.9, 1), (0.3, 2), (0.99, 20)])
def test_mi_equals_the_determinant_formula(rho, dim):
    _, log_det = np.linalg.slogdet(covariance(rho, dim))
    assert gaussian_mi(rho, dim) == pytest.approx(-0.5 * log_det, abs=1e-12)


@pytest.mark.parametrize(("mi", "dim"), [(0.0, 20), (1e-6, 1), (2.0, 20), (10.0, 1)])
def test_rho_inverts_mi(mi, dim):
    assert gaussian_mi(gaussian_rho(mi, dim), dim) == pytest.approx(mi, rel=1e-8, abs=1e-15)


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.999])
def test_log_ratio_equals_that_of_the_densities(rho):
    dim, rng = 3, np.random.default_rng(0)
    pairs = rng.multivariate_normal(np.zeros(2 * dim), covariance(rho, dim), size=50)
    x, y = pairs[:, :dim], pairs[:, dim:]
    log_joint = multivariate_normal(np.zeros(2 * dim), covariance(rho, dim)).logpdf(pairs)
    expected = log_joint - norm.logpdf(x).sum(1) - norm.logpdf(y).sum(1)

    result = gaussian_log_ratio(torch.from_numpy(x), torch.from_numpy(y), rho)

    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("rho", "dtype", "tolerance"),
    [(0.4, torch.float64, 1e-9), (0.999, torch.float64, 1e-9), (0.999, torch.float32, 2e-3)],
)
def test_log_ratio_matrix_contains_every_pair(rho, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    y = rho * x + math.sqrt(1 - rho**2) * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    y = torch.cat([y, y[:2] + 0.01])
    expected = torch.stack([gaussian_log_ratio(row.expand_as(y), y, rho) for row in x])

    matrix = gaussian_log_ratio_matrix(x.to(dtype), y.to(dtype), rho)

    assert matrix.dtype == dtype
    torch.testing.assert_close(matrix.double(), expected, rtol=tolerance, atol=tolerance)


def test_independent_pairs_have_zero_mi():
    assert gaussian_rho(0.0, dim=5) == 0.0
    assert str(gaussian_mi(0.0, dim=5)) == "0.0"
    assert gaussian_log_ratio(torch.randn(4, 5), torch.randn(4, 5), 0.0).abs().max() == 0


POINTS = torch.zeros(2, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_rho(-0.1, dim=20), "Got mi=-0.1"),
        (lambda: gaussian_rho(math.nan, dim=20), "Got mi=nan"),
        (lambda: gaussian_rho(math.inf, dim=20), "Got mi=inf"),
        (lambda: gaussian_rho(20.0, dim=1), "lower mi or raise dim"),
        (lambda: gaussian_rho(1.0, dim=0), "dim=0"),
        (lambda: gaussian_mi(0.5, dim=-1), "dim=-1"),
        (lambda: gaussian_mi(-1.0, dim=1), r"rho=-1.0: .* inside \(-1, 1\)"),
        (lambda: gaussian_mi(math.nan, dim=1), "rho=nan"),
        (lambda: gaussian_log_ratio(POINTS, POINTS, 1.0), "rho=1.0"),
        (lambda: gaussian_log_ratio_matrix(POINTS, POINTS, 2.0), "rho=2.0"),
        (
            lambda: gaussian_log_ratio(torch.zeros(3, 2), torch.zeros(4, 2), 0.5),
            r"\(3, 2\) and \(4, 2\): .*\(N, D\) and \(N, D\)",
        ),
        (lambda: gaussian_log_ratio(torch.zeros(3, 2), torch.zeros(3, 1), 0.5), r"\(3, 2\) and \(3, 1\)"),
        (lambda: gaussian_log_ratio(torch.zeros(3), torch.zeros(3), 0.5), r"\(3,\) and \(3,\)"),
        (lambda: gaussian_log_ratio_matrix(torch.zeros(3, 2), torch.zeros(4, 1), 0.5), r"\(N, D\) and \(M, D\)"),
    ],
)
def test_invalid_arguments_raise_with_value_and_range(call, message):
    gaussian_rho(18.0, dim=1)  # the largest supported mi for one dimension
    with pytest.raises(ValueError, match=message):
        call()
