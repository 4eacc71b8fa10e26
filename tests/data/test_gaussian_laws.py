"""The Gaussian law against NumPy and SciPy in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from lightning_mi.data import gaussian_log_ratio, gaussian_log_ratio_matrix, gaussian_mi, gaussian_rho


def covariance(rho, dim):
    return np.block([[np.eye(dim), rho * np.eye(dim)], [rho * np.eye(dim), np.eye(dim)]])


@pytest.mark.parametrize("dim", [1, 2, 20])
@pytest.mark.parametrize("rho", [-0.9, 0.0, 0.3, 0.99])
def test_mi_is_that_of_the_determinant_formula(rho, dim):
    _, log_det = np.linalg.slogdet(covariance(rho, dim))
    assert gaussian_mi(rho, dim) == pytest.approx(-0.5 * log_det, abs=1e-12)


@pytest.mark.parametrize("dim", [1, 20])
@pytest.mark.parametrize("mi", [0.0, 1e-6, 2.0, 10.0])
def test_rho_inverts_mi(mi, dim):
    assert gaussian_mi(gaussian_rho(mi, dim), dim) == pytest.approx(mi, rel=1e-8, abs=1e-15)


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.4, 0.999])
def test_log_ratio_is_that_of_the_densities(rho):
    dim, rng = 3, np.random.default_rng(0)
    pairs = rng.multivariate_normal(np.zeros(2 * dim), covariance(rho, dim), size=50)
    x, y = pairs[:, :dim], pairs[:, dim:]
    log_joint = multivariate_normal(np.zeros(2 * dim), covariance(rho, dim)).logpdf(pairs)
    expected = log_joint - norm.logpdf(x).sum(1) - norm.logpdf(y).sum(1)

    result = gaussian_log_ratio(torch.from_numpy(x), torch.from_numpy(y), rho)

    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
@pytest.mark.parametrize("rho", [0.4, 0.999])
def test_log_ratio_matrix_holds_the_log_ratio_of_every_pair(rho, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    y = rho * x + math.sqrt(1 - rho**2) * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    y = torch.cat([y, y[:2] + 0.01])
    expected = torch.stack([gaussian_log_ratio(row.expand_as(y), y, rho) for row in x])

    matrix = gaussian_log_ratio_matrix(x.to(dtype), y.to(dtype), rho)

    assert matrix.dtype == dtype
    torch.testing.assert_close(matrix.double(), expected, rtol=tolerance, atol=tolerance)


def test_independent_pairs_have_no_information():
    assert gaussian_rho(0.0, dim=5) == 0.0
    assert str(gaussian_mi(0.0, dim=5)) == "0.0"
    assert gaussian_log_ratio(torch.randn(4, 5), torch.randn(4, 5), 0.0).abs().max() == 0


@pytest.mark.parametrize("mi", [-0.1, math.nan, math.inf])
def test_mi_that_is_none_is_refused(mi):
    with pytest.raises(ValueError, match="not a mutual information"):
        gaussian_rho(mi, dim=20)


def test_mi_too_large_for_its_dimension_is_refused():
    gaussian_rho(18.0, dim=1)
    with pytest.raises(ValueError, match="lower mi or raise dim"):
        gaussian_rho(20.0, dim=1)


@pytest.mark.parametrize("rho", [-1.0, 1.0, 2.0, math.nan])
def test_rho_outside_its_interval_is_refused(rho):
    points = torch.zeros(2, 1)
    for use in (gaussian_mi, lambda rho, _: gaussian_log_ratio(points, points, rho)):
        with pytest.raises(ValueError, match=r"inside \(-1, 1\)"):
            use(rho, 1)
    with pytest.raises(ValueError, match=r"inside \(-1, 1\)"):
        gaussian_log_ratio_matrix(points, points, rho)


def test_a_law_without_coordinates_is_refused():
    with pytest.raises(ValueError, match="dim=0"):
        gaussian_rho(1.0, dim=0)
    with pytest.raises(ValueError, match="dim=-1"):
        gaussian_mi(0.5, dim=-1)


@pytest.mark.parametrize("shapes", [((3, 2), (4, 2)), ((3, 2), (3, 1)), ((3,), (3,))])
def test_shapes_that_are_not_pairs_are_refused(shapes):
    with pytest.raises(ValueError, match=r"needs \(N, D\) and \(N, D\)"):
        gaussian_log_ratio(torch.zeros(shapes[0]), torch.zeros(shapes[1]), 0.5)


def test_shapes_without_common_features_are_refused_for_the_matrix():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(4, 1\)"):
        gaussian_log_ratio_matrix(torch.zeros(3, 2), torch.zeros(4, 1), 0.5)
