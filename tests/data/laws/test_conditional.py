"""Laws of x, y and z: conditional MI, samples and log-ratio against covariances."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from lightning_mi.data import laws

COVARIANCE = [[2.0, 0.5, 0.3, 0.2], [0.5, 1.5, -0.4, 0.6], [0.3, -0.4, 1.0, 0.1], [0.2, 0.6, 0.1, 1.2]]
LAWS: list[Any] = [laws.ConditionalGaussian(COVARIANCE, 1, 2), laws.ConditionalGaussian(COVARIANCE, 2, 1)]
LAWS += [laws.ConfoundedGaussian(), laws.ConfoundedGaussian(2, 0.5, 3.0, -1.0)]
ANY = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.describe())


def log_det(matrix, indices):
    return np.linalg.slogdet(matrix[np.ix_(indices, indices)])[1]


def parts(law):
    ends = np.cumsum(law.sides)
    return list(range(ends[0])), list(range(ends[0], ends[1])), list(range(ends[1], ends[2]))


@ANY
def test_conditional_mi_equals_the_determinant_formula(law):
    x, y, z = parts(law)
    s = law.covariance_matrix().numpy()
    expected = (log_det(s, x + z) + log_det(s, y + z) - log_det(s, z) - log_det(s, x + y + z)) / 2
    assert law.true_conditional_mi == pytest.approx(expected, abs=1e-12)
    assert law.unconditional_mi == pytest.approx((log_det(s, x) + log_det(s, y) - log_det(s, x + y)) / 2, abs=1e-12)


@ANY
def test_samples_have_the_covariance(law):
    triple = law.sample(40_000, torch.Generator().manual_seed(0))
    assert tuple(side.shape[1] for side in triple) == law.sides
    observed, expected = torch.cat(triple, 1).T.cov(), law.covariance_matrix()
    scale = expected.diagonal().sqrt()
    assert ((observed - expected) / torch.outer(scale, scale)).abs().max() < 5 * math.sqrt(2 / 40_000)


@ANY
def test_log_ratio_is_that_of_the_densities(law):
    triple = law.sample(30, torch.Generator().manual_seed(0))
    s, values = law.covariance_matrix().numpy(), torch.cat(triple, 1).numpy()

    def log_density(indices):
        return multivariate_normal(np.zeros(len(indices)), s[np.ix_(indices, indices)]).logpdf(values[:, indices])

    x, y, z = parts(law)
    expected = log_density(x + y + z) + log_density(z) - log_density(x + z) - log_density(y + z)
    np.testing.assert_allclose(law.log_ratio(*triple), expected, atol=1e-10)


def test_default_channel_has_1733_millinats():
    law = laws.ConfoundedGaussian()
    assert law.true_conditional_mi == pytest.approx(1.733, abs=5e-4)
    assert law.unconditional_mi > law.true_conditional_mi + 0.5


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="none is left for z"):
        laws.ConditionalGaussian(COVARIANCE, 2, 2)
    with pytest.raises(ValueError, match=r"noise=0\.0"):
        laws.ConfoundedGaussian(noise=0.0)
    with pytest.raises(ValueError, match="n=0"):
        LAWS[0].sample(0, torch.Generator())
