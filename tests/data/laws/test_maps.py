"""Maps of laws: exact inverses, and the functions of their papers."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from lightning_mi.data import laws

NORMAL = torch.randn(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
UNIFORM = torch.rand(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MAPS = [
    (laws.Elementwise("cubic"), NORMAL, 1e-5),
    (laws.Elementwise("asinh"), NORMAL, 1e-5),
    (laws.Elementwise("half_cube"), NORMAL, 1e-5),
    (laws.Elementwise("normal_cdf"), NORMAL, 1e-3),
    (laws.Wiggly("x"), NORMAL, 1e-5),
    (laws.Wiggly("y"), NORMAL, 1e-5),
    (laws.Bimodal(), NORMAL, 1e-4),
    (laws.Bimodal(3.0, -1.0, weight=0.8), NORMAL, 1e-4),
    (laws.Spiral(0, 1, 0.25), NORMAL, 1e-5),
    (laws.Spiral(3, 1, 2.0), NORMAL, 1e-4),
    (laws.Rotation(4, seed=3), NORMAL, 1e-5),
    (laws.SwissRoll(), UNIFORM, 1e-5),
    (laws.Plasma(4, size=5), NORMAL, 1e-4),
]
ANY_MAP = pytest.mark.parametrize(("transform", "values", "tolerance"), MAPS, ids=lambda value: str(value)[:25])


@ANY_MAP
def test_inverse_restores_the_values(transform, values, tolerance):
    image = transform.forward(values)
    assert image.dtype == torch.float64
    torch.testing.assert_close(transform.inverse(image), values, rtol=1e-9, atol=1e-9)
    rounded = transform.inverse(image.float())
    assert rounded.dtype == torch.float64
    torch.testing.assert_close(rounded, values, rtol=tolerance, atol=tolerance)


@ANY_MAP
def test_mapped_law_has_the_log_ratio_of_its_base(transform, values, tolerance):
    base = laws.AdditiveUniform(0.5) if values is UNIFORM else laws.GaussianPairs(4, 0.7)
    law = laws.Mapped(base, x_map=transform)
    x, y = base.sample(100, torch.Generator().manual_seed(0))
    image, same_y = law.sample(100, torch.Generator().manual_seed(0))
    assert torch.equal(image, transform.forward(x))
    assert torch.equal(same_y, y)
    torch.testing.assert_close(law.log_ratio(image, y), base.log_ratio(x, y), rtol=1e-7, atol=1e-7)
    assert law.true_mi == base.true_mi


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transform", [laws.Elementwise("normal_cdf"), laws.Plasma(1, size=2)])
def test_bounded_images_that_round_to_a_bound_stay_finite(transform, dtype):
    extreme = torch.tensor([[0.0], [1.0]], dtype=dtype)
    image = extreme if isinstance(transform, laws.Elementwise) else extreme.reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    assert transform.inverse(image).isfinite().all()


@pytest.mark.parametrize("side", ["x", "y"])
def test_slope_of_a_wiggly_map_is_positive(side):
    grid = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    assert laws.Wiggly(side).forward(grid).diff().min() > 0
    assert laws.Wiggly("x").forward(torch.ones(1, dtype=torch.float64)).item() == pytest.approx(
        1 + 0.4 * math.sin(1) + 0.2 * math.sin(2.7) + 0.03 * math.sin(0.8)
    )


def test_bimodal_image_of_a_normal_is_the_mixture():
    image = laws.Bimodal(-1.0, 3.0, weight=0.4).forward(NORMAL).flatten().numpy()
    levels = 0.4 * stats.norm.cdf(image + 1) + 0.6 * stats.norm.cdf(image - 3)
    np.testing.assert_allclose(levels, stats.norm.cdf(NORMAL.flatten().numpy()), rtol=1e-10)
    extreme = torch.tensor([-8.0, 8.0], dtype=torch.float64)
    torch.testing.assert_close(laws.Bimodal().inverse(laws.Bimodal().forward(extreme)), extreme, rtol=1e-9, atol=0)


def test_spiral_equals_the_matrix_exponential():
    plane = np.zeros((4, 4))
    plane[1, 2], plane[2, 1] = -1, 1
    expected = [linalg.expm(0.3 * plane * (v @ v)) @ v for v in NORMAL[:20].numpy()]
    np.testing.assert_allclose(laws.Spiral(1, 2, 0.3).forward(NORMAL[:20]), expected, atol=1e-12)


def test_rotation_is_orthogonal_and_depends_on_its_seed():
    matrix = laws.Rotation(5, seed=1).forward(torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(5, dtype=torch.float64))
    assert not torch.allclose(matrix, laws.Rotation(5, seed=2).forward(torch.eye(5, dtype=torch.float64)))


def test_plasma_of_few_modes_is_smooth_with_unit_variance():
    noise = torch.randn(4000, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images = laws.Plasma(6, size=8).forward(noise)
    assert 0 < images.min() < images.max() < 1
    assert torch.logit(images).square().mean().item() == pytest.approx(1.0, abs=0.05)
    assert images.diff(dim=3).square().mean() < 0.15 * images.var()
    noise = torch.randn(4000, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    white = laws.Plasma(64, size=8, decay=0.0).forward(noise)
    assert white.diff(dim=3).square().mean() > 1.5 * white.var()


def test_names_and_descriptions_tell_the_maps():
    law = laws.Mapped(laws.GaussianPairs(3), laws.Spiral(), laws.Elementwise("asinh"))
    assert law.name == "Spiral x asinh(GaussianPairs)"
    assert laws.Mapped(law, x_map=laws.Rotation(3)).name == "Rotation x identity(Spiral x asinh(GaussianPairs))"
    assert "y by Elementwise(transform='asinh')" in law.describe()
    assert laws.Mapped(laws.GaussianPairs()).describe().endswith("mapped: nothing")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: laws.Elementwise("cube"), "transform='cube'"),
        (lambda: laws.Wiggly("z"), "side='z'"),
        (lambda: laws.Bimodal(weight=1.0), "weight=1.0"),
        (lambda: laws.Bimodal(first=math.inf), "first=inf"),
        (lambda: laws.Spiral(1, 1), "first=second=1"),
        (lambda: laws.Spiral(0, 4).forward(NORMAL), r"\(500, 4\): .* D above 4"),
        (lambda: laws.Rotation(0), "dim=0"),
        (lambda: laws.SwissRoll().forward(NORMAL), r"\(500, 4\)"),
        (lambda: laws.OneHotLabels(2).forward(torch.tensor([0, 2])), "label 2 at position 1"),
        (lambda: laws.Plasma(5, size=2), "num_modes=5 and size=2"),
        (lambda: laws.Plasma(3).forward(NORMAL), r"\(500, 4\): .* \(n, 3\)"),
    ],
)
def test_invalid_arguments_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()
