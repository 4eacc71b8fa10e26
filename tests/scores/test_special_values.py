"""NaN, infinities, subnormal numbers and empty inputs on every path, compared with float64 NumPy."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch

from lightning_mi import critics, pairs
from tests.helpers import critic_formulas
from tests.helpers.critic_specs import CRITICS, CriticSpec
from tests.helpers.specs import by_name

N, D = 64, 256
SUBNORMAL = 1e-41
SPECIAL = {1: math.nan, 7: math.inf, 20: -math.inf, 33: SUBNORMAL}  # by row of x
# Networks wide enough for the vectorized kernels of torch.
WIDE = [
    CriticSpec("wide joint", lambda dim: critics.JointCritic(dim, dim), critic_formulas.joint),
    CriticSpec("wide separable", lambda dim: critics.SeparableCritic(dim, dim), critic_formulas.separable),
    CriticSpec(
        "calibrated wide joint",
        lambda dim: critics.CalibratedCritic(critics.JointCritic(dim, dim), scale=True),
        partial(critic_formulas.calibrated, formula=critic_formulas.joint),
    ),
]
over_critics = pytest.mark.parametrize("spec", [*CRITICS, *WIDE], ids=by_name)
over_wide_networks = pytest.mark.parametrize("spec", WIDE[:2], ids=by_name)


def views() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, N, D, generator=generator).unbind()
    for row, value in SPECIAL.items():
        x[row, ::2] = value
    return x, y


def assert_same(found: torch.Tensor, expected: np.ndarray) -> None:
    """Equal in what is NaN and in what is infinite, and close elsewhere."""
    got = found.detach().double().numpy()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(expected))
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(got[finite], expected[finite], rtol=1e-4, atol=1e-4 * np.abs(expected[finite]).max())


@pytest.mark.parametrize("tile_bytes", [20_000, math.inf])
@over_critics
def test_special_values_of_a_view_reach_the_scores(spec: CriticSpec, tile_bytes: float | None) -> None:
    torch.manual_seed(0)
    critic, (x, y) = spec.make(D), views()
    # torch keeps a vector whose norm is below 1e-12 as it is; a subnormal one has no direction.
    rows = [i for i in range(N) if not (spec.name == "cosine" and SPECIAL.get(i) == SUBNORMAL)]
    x = x[rows]
    with np.errstate(invalid="ignore"):
        expected = spec.reference(critic, x.double().numpy(), y.double().numpy())
    assert np.isnan(expected).any(axis=1).sum() >= 1
    assert_same(critic.pairwise(x, y), expected)
    assert_same(critic.paired(x, y[: len(x)]), np.diagonal(expected))
    scores = pairs.AllPairs(tile_bytes=tile_bytes)(critic, x, y[: len(x)])
    square = expected[:, : len(x)]
    square = square.T if critic.is_log_density else square  # a row is one y
    assert_same(scores.joint, np.diagonal(square))
    assert_same(scores.marginal_values(), square[~np.eye(len(x), dtype=bool)])


@pytest.mark.parametrize("tile_bytes", [20_000, math.inf])
@over_wide_networks
def test_nan_in_a_view_makes_every_reduction_nan(spec: CriticSpec, tile_bytes: float) -> None:
    torch.manual_seed(0)
    critic, (x, y) = spec.make(D), views()
    x[[7, 20, 33]] = 1.0
    scores = pairs.AllPairs(tile_bytes=tile_bytes)(critic, x, y)
    assert scores.log_mean_exp().isnan()
    assert scores.log_mean_exp(clip=1.0).isnan()
    assert scores.log_mean_exp(power=2.0).isnan()
    assert scores.mean_softplus().isnan()
    assert all(mean.isnan() for mean in scores.row_means())
    assert scores.row_log_mean_exp().isnan().tolist() == [i == 1 for i in range(N)]


@pytest.mark.parametrize("tile_bytes", [20_000, math.inf])
@over_wide_networks
def test_nan_in_a_view_reaches_the_gradients(spec: CriticSpec, tile_bytes: float) -> None:
    torch.manual_seed(0)
    critic, (x, y) = spec.make(D), views()
    twin = copy.deepcopy(critic).double()
    for scorer, tensors, size in ((critic, (x, y), tile_bytes), (twin, (x.double(), y.double()), math.inf)):
        pairs.AllPairs(tile_bytes=size)(scorer, *tensors).log_mean_exp().backward()
    for parameter, exact in zip(critic.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter.grad.isnan(), exact.grad.isnan())


@over_critics
def test_empty_views_have_empty_scores(spec: CriticSpec) -> None:
    critic, y = spec.make(D), torch.ones(3, D)
    assert critic.pairwise(y[:0], y).shape == (0, 3)
    assert critic.pairwise(y, y[:0]).shape == (3, 0)
    assert critic.paired(y[:0], y[:0]).shape == (0,)
