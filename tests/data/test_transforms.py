"""Transforms against SciPy, and against their inverses."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from lightning_mi.data import TRANSFORMS, get_transform

REFERENCES = {
    "identity": lambda y: y,
    "cubic": lambda y: np.power(y, 3),
    "asinh": np.arcsinh,
    "half_cube": lambda y: y * np.sqrt(np.abs(y)),
    "normal_cdf": norm.cdf,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_equals_its_reference_and_inverts(name):
    y = np.linspace(-8, 8, 41)
    result = get_transform(name).forward(torch.from_numpy(y))
    np.testing.assert_allclose(result.numpy(), REFERENCES[name](y), rtol=1e-12)  # both tails of normal_cdf too
    assert get_transform(name).forward(torch.zeros(2)).dtype == torch.float32
    inner = torch.linspace(-4, 4, 41, dtype=torch.float64)
    transform = get_transform(name)
    torch.testing.assert_close(transform.inverse(transform.forward(inner)), inner, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_cdf_of_extreme_values_inverts_to_finite_values(dtype):
    extreme = torch.tensor([-50.0, 50.0], dtype=dtype)
    transform = get_transform("normal_cdf")
    assert transform.inverse(transform.forward(extreme)).isfinite().all()


def test_float32_normal_cdf_has_the_documented_accuracy():
    transform = get_transform("normal_cdf")
    for y, tolerance in ((-5.0, 1e-5), (3.0, 2e-5), (5.0, 0.05)):
        start = torch.linspace(y - 0.05, y, 200)
        assert (transform.inverse(transform.forward(start)) - start).abs().max() < tolerance


def test_unknown_transform_raises_with_the_known_names():
    with pytest.raises(
        ValueError, match="'cube': it is one of 'identity', 'cubic', 'asinh', 'half_cube', 'normal_cdf'"
    ):
        get_transform("cube")
