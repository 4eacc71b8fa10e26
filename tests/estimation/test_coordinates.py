"""Coordinates against SciPy."""

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from lightning_mi.estimation.coordinates import OneHotCoordinates, RankCoordinates


def test_gaussian_ranks_equal_scipy_with_ties():
    values = np.random.default_rng(0).integers(0, 9, size=(50, 3)).astype(float)
    expected = norm.ppf((rankdata(values, axis=0) - 0.5) / 50)
    np.testing.assert_allclose(RankCoordinates(values).ranks(values), expected, atol=1e-12)


def test_ranks_do_not_change_with_increasing_maps():
    values = np.random.default_rng(0).normal(size=(50, 2))
    mapped = np.exp(3 * values)
    np.testing.assert_array_equal(RankCoordinates(values).ranks(values), RankCoordinates(mapped).ranks(mapped))


def test_features_are_products_asinh_and_radius():
    values = np.random.default_rng(0).normal(size=(50, 2)) * [1, 100] + [5, 0]
    coordinates = RankCoordinates(values)
    lower, median, upper = np.percentile(values, [25, 50, 75], axis=0)
    scaled = (values - median) * 1.349 / (upper - lower)
    radius = np.log1p((scaled**2).mean(axis=1))
    assert coordinates.num_ranks == 2
    radius = (radius - radius.mean()) / radius.std()
    products, ranks, asinh, last = np.split(coordinates(values).numpy(), [2, 4, 6], axis=1)
    np.testing.assert_allclose(products, ranks * radius.clip(-1.5, 1.5)[:, None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(asinh, np.arcsinh(scaled), rtol=1e-5)
    np.testing.assert_allclose(last[:, 0], radius, rtol=1e-4, atol=1e-5)


def test_atoms_get_an_indicator():
    values = np.where(np.arange(100) % 4 == 0, 0.0, np.random.default_rng(0).normal(size=100))[:, None]
    indicator = RankCoordinates(values, atoms=True)(values)[:, 4:]
    np.testing.assert_array_equal(indicator[:, 0], np.arange(100) % 4 == 0)
    assert indicator.shape[1] == 1


@pytest.mark.parametrize(
    "values", [np.zeros((20, 1)), np.r_[np.zeros(19), 1.0][:, None]], ids=["constant", "one value"]
)
def test_degenerate_columns_are_finite(values):
    assert RankCoordinates(values, atoms=True)(values).isfinite().all()


def test_new_values_get_ranks_between_the_reference():
    reference = np.arange(4.0)[:, None]
    ranks = RankCoordinates(reference).ranks(np.array([[-9.0], [1.5], [9.0]]))
    np.testing.assert_allclose(ranks[:, 0], norm.ppf([1 / 8, 1 / 2, 7 / 8]), atol=1e-12)


def test_labels_are_no_ranks():
    assert OneHotCoordinates(3).num_ranks == 0
