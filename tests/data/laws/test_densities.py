"""Log-ratios of single laws against SciPy's densities, and properties of their samples."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_mi.data import laws
from tests.helpers.law_specs import CORRELATED, COVARIANCES, MEANS, WEIGHTS, dense


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_gaussian_log_ratio_is_that_of_the_densities():
    x, y = (side.numpy() for side in laws.Gaussian(CORRELATED, 2).sample(50, generator()))
    matrix = np.array(CORRELATED)
    joint = stats.multivariate_normal(np.zeros(3), matrix).logpdf(np.hstack([x, y]))
    marginals = [
        stats.multivariate_normal(np.zeros(len(part)), part).logpdf(side).reshape(-1)
        for part, side in ((matrix[:2, :2], x), (matrix[2:, 2:], y))
    ]
    result = laws.Gaussian(CORRELATED, 2).log_ratio(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(result, joint - sum(marginals), atol=1e-12)


@pytest.mark.parametrize("df", [1.0, 2.5, 30.0])
def test_student_log_ratio_is_that_of_the_densities(df):
    law = laws.StudentT(laws.DenseGaussian(2, 1, 0.4), df)
    x, y = (side.numpy() for side in law.sample(200, generator()))
    joint = stats.multivariate_t(shape=dense(3, 0.4), df=df).logpdf(np.hstack([x, y]))
    marginals = stats.multivariate_t(shape=dense(2, 0.4), df=df).logpdf(x) + stats.t(df).logpdf(y[:, 0])
    result = law.log_ratio(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(result, joint - marginals, atol=1e-10)


def test_student_samples_have_the_marginal_law():
    x, y = laws.StudentT(laws.DenseGaussian(2, 1, 0.4), df=2.5).sample(5000, generator())
    for column in torch.cat([x, y], 1).T:
        assert stats.kstest(column.numpy(), stats.t(2.5).cdf).pvalue > 1e-3


def test_student_of_many_degrees_of_freedom_is_gaussian():
    gaussian = laws.GaussianPairs(2, 0.5)
    assert laws.StudentT(gaussian, df=1e7).true_mi == pytest.approx(gaussian.true_mi, abs=1e-6)


def test_mixture_log_ratio_is_that_of_the_densities():
    law = laws.GaussianMixture(WEIGHTS, MEANS, COVARIANCES)
    x, y = (side.numpy() for side in law.sample(50, generator()))
    joint = sum(
        w * stats.multivariate_normal(mean, matrix).pdf(np.hstack([x, y]))
        for w, mean, matrix in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
    )
    marginal = [
        sum(
            w * stats.norm(mean[side], matrix[side][side] ** 0.5).pdf(value[:, 0])
            for w, mean, matrix in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
        )
        for side, value in enumerate((x, y))
    ]
    result = law.log_ratio(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(result, np.log(joint / marginal[0] / marginal[1]), atol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.9, -0.99])
def test_mixture_of_one_component_is_gaussian(rho):
    law = laws.GaussianMixture([1.0], [[3.0, -2.0]], [[[1.0, 2 * rho], [2 * rho, 4.0]]])
    assert law.true_mi == pytest.approx(-0.5 * math.log(1 - rho * rho), abs=1e-8)


def test_mixture_that_is_too_narrow_raises():
    law = laws.GaussianMixture([0.5, 0.5], [[0, 0], [1e4, 0]], [np.eye(2).tolist()] * 2)
    with pytest.raises(ValueError, match="a grid of more than 5000 points"):
        law.true_mi  # noqa: B018


@pytest.mark.parametrize("noise", [0.1, 0.75])
def test_pairs_outside_the_support_have_log_ratio_minus_infinity(noise):
    law = laws.AdditiveUniform(noise)
    x = torch.tensor([[0.5], [0.5], [1.1]])
    y = x + torch.tensor([[noise + 0.01], [-noise - 0.01], [0.0]])
    assert law.log_ratio(x, y).tolist() == [-math.inf] * 3


def test_float32_rounding_keeps_pairs_inside_the_support():
    x = torch.rand(10_000, 1, generator=generator(), dtype=torch.float64)
    for noise in (-0.3, 0.3):  # at the two bounds of the support, which rounding crosses for every other pair
        assert laws.AdditiveUniform(0.3).log_ratio(x.float(), (x + noise).float()).isfinite().all()
    labels = torch.arange(5)
    for step in (0, 2):
        assert laws.DiscreteContinuous().log_ratio(labels, (labels + step).unsqueeze(1).float()).isfinite().all()


def test_impossible_cells_of_a_table_have_log_ratio_minus_infinity():
    law = laws.JointTable([[0.5, 0.0, 0.0], [0.25, 0.25, 0.0]])
    zeros = torch.zeros(3, dtype=torch.int64)
    assert law.log_ratio(zeros, torch.arange(3)).tolist() == pytest.approx([math.log(4 / 3), -math.inf, -math.inf])


def test_table_samples_have_the_frequencies_of_the_table():
    table = torch.tensor([[0.2, 0.1, 0.0], [0.05, 0.25, 0.4]], dtype=torch.float64)
    x, y = laws.JointTable(table.tolist()).sample(20_000, generator())
    counts = torch.bincount(3 * x + y, minlength=6).double()
    assert counts[2] == 0
    keep = [0, 1, 3, 4, 5]
    assert stats.chisquare(counts[keep].numpy(), 20_000 * table.flatten()[keep].numpy()).pvalue > 1e-3


def test_inflated_zeros_lower_the_mi_below_the_known_formula():
    law = laws.ZeroInflatedPoisson(0.15)
    assert law.true_mi < 0.85 * laws.ZeroInflatedPoisson(0.0).true_mi - 0.02
    ratio = law.log_ratio(*law.sample(100_000, generator()))
    assert abs(ratio.mean() - law.true_mi) < 4 * ratio.std() / math.sqrt(len(ratio))


def test_zero_inflated_counts_have_their_law():
    x, y = laws.ZeroInflatedPoisson(0.3).sample(20_000, generator())
    assert stats.kstest(x[:, 0].numpy(), stats.expon.cdf).pvalue > 1e-3
    counts = torch.bincount(y[:, 0].long(), minlength=40)[:8]
    expected = 0.7 * 0.5 ** (np.arange(8) + 1) + 0.3 * (np.arange(8) == 0)
    observed, expected = [*counts, 20_000 - counts.sum()], [*expected, 1 - expected.sum()]
    assert stats.chisquare(observed, 20_000 * np.array(expected)).pvalue > 1e-3


def test_autoregression_is_stationary_with_its_autocorrelation():
    law = laws.VectorAutoregression([[0.8, 0.1], [0.5, 0.4]], [[1.0, 0.3], [0.3, 2.0]])
    covariance, matrix = law.covariance_matrix(), torch.tensor(law.coefficients, dtype=torch.float64)
    source = generator()
    series = torch.stack([torch.cat(law.sample(9, source), dim=1) for _ in range(4000)])  # of 9 times
    for time in (0, 1, 4, 8):
        torch.testing.assert_close(series[:, time].T @ series[:, time] / 4000, covariance, rtol=0.1, atol=0.1)
    lagged = series[:, 8].T @ series[:, 5] / 4000
    torch.testing.assert_close(lagged, torch.linalg.matrix_power(matrix, 3) @ covariance, rtol=0.1, atol=0.2)
    assert not law.independent_samples


def test_autoregression_equals_its_recursion():
    law = laws.VectorAutoregression([[0.8, 0.1], [0.5, 0.4]])
    series = torch.cat(law.sample(50, generator()), dim=1)
    noise = torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    steps = series[1:] - series[:-1] @ torch.tensor(law.coefficients, dtype=torch.float64).T
    torch.testing.assert_close(steps, noise[1:])
