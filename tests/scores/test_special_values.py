"""NaN, infinities, subnormal numbers and empty inputs on every path, compared with float64 NumPy."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import critics, pairs

N, D = 64, 256  # large enough for the vectorized kernels of torch
SUBNORMAL = 1e-41
SPECIAL = {1: math.nan, 7: math.inf, 20: -math.inf, 33: SUBNORMAL}  # by row of x
CRITICS: dict[str, Callable[[], critics.AbstractCritic]] = {
    "joint": lambda: critics.JointCritic(D, D),
    "separable": lambda: critics.SeparableCritic(D, D),
    "bilinear": lambda: critics.BilinearCritic(D, D),
    "inner product": lambda: critics.InnerProductCritic(),
    "cosine": lambda: critics.InnerProductCritic(normalize=True, temperature=0.1),
    "calibrated joint": lambda: critics.CalibratedCritic(critics.JointCritic(D, D), scale=True),
}


def views() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, N, D, generator=generator).unbind()
    for row, value in SPECIAL.items():
        x[row, ::2] = value
    return x, y


def layers(network: nn.Module) -> list[tuple[np.ndarray, np.ndarray | float]]:
    return [
        (
            one.weight.detach().double().numpy(),
            0.0 if one.bias is None else one.bias.detach().double().numpy(),  # type: ignore[redundant-expr]  # torch: never None
        )
        for one in network.modules()
        if isinstance(one, nn.Linear)
    ]


def perceptron(network: nn.Module, x: np.ndarray, relu_input: bool = False) -> np.ndarray:
    for i, (weight, bias) in enumerate(layers(network)):
        x = np.maximum(x, 0) if i or relu_input else x  # NaN stays NaN in np.maximum
        x = np.matmul(x, weight.T) + bias
    return x


@np.errstate(invalid="ignore")
def reference(critic: critics.AbstractCritic, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Scores of all pairs in float64, from the critic's definition."""
    if isinstance(critic, critics.CalibratedCritic):  # as initialized: scale 1, offset 0
        return reference(critic.critic, x, y)
    if isinstance(critic, critics.JointCritic):
        ((weight, bias),) = layers(critic.first)
        every = (x @ weight[:, :D].T + bias)[:, None] + (y @ weight[:, D:].T)
        return perceptron(critic.rest, every.reshape(-1, every.shape[-1]), relu_input=True).reshape(len(x), len(y))
    if isinstance(critic, critics.SeparableCritic):
        return perceptron(critic.x_net, x) @ perceptron(critic.y_net, y).T
    if isinstance(critic, critics.BilinearCritic):
        return x @ critic.weight.detach().double().numpy() @ y.T
    assert isinstance(critic, critics.InnerProductCritic)
    if critic.normalize:
        x, y = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (x, y))
    return x @ y.T / critic.temperature


def assert_same(found: torch.Tensor, expected: np.ndarray) -> None:
    """Equal in what is NaN and in what is infinite, and close elsewhere."""
    got = found.detach().double().numpy()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(expected))
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(got[finite], expected[finite], rtol=1e-4, atol=1e-4 * np.abs(expected[finite]).max())


@pytest.mark.parametrize("tile_bytes", [20_000, math.inf])
@pytest.mark.parametrize("name", CRITICS)
def test_special_values_of_a_view_reach_the_scores(name: str, tile_bytes: float | None) -> None:
    torch.manual_seed(0)
    critic, (x, y) = CRITICS[name](), views()
    # torch keeps a vector whose norm is below 1e-12 as it is; a subnormal one has no direction.
    rows = [i for i in range(N) if not (name == "cosine" and SPECIAL.get(i) == SUBNORMAL)]
    x = x[rows]
    expected = reference(critic, x.double().numpy(), y.double().numpy())
    assert np.isnan(expected).any(axis=1).sum() >= 1
    assert_same(critic.pairwise(x, y), expected)
    assert_same(critic.paired(x, y[: len(x)]), np.diagonal(expected))
    scores = pairs.AllPairs(tile_bytes=tile_bytes)(critic, x, y[: len(x)])
    square = expected[:, : len(x)]
    assert_same(scores.joint, np.diagonal(square))
    assert_same(scores.marginal_values(), square[~np.eye(len(x), dtype=bool)])


@pytest.mark.parametrize("tile_bytes", [20_000, math.inf])
@pytest.mark.parametrize("name", ["joint", "separable"])
def test_nan_in_a_view_makes_every_reduction_nan(name: str, tile_bytes: float) -> None:
    torch.manual_seed(0)
    critic, (x, y) = CRITICS[name](), views()
    x[[7, 20, 33]] = 1.0
    scores = pairs.AllPairs(tile_bytes=tile_bytes)(critic, x, y)
    assert scores.log_mean_exp().isnan()
    assert scores.log_mean_exp(clip=1.0).isnan()
    assert scores.log_mean_exp(power=2.0).isnan()
    assert scores.mean_softplus().isnan()
    assert all(mean.isnan() for mean in scores.row_means())
    assert scores.row_log_mean_exp().isnan().tolist() == [i == 1 for i in range(N)]


@pytest.mark.parametrize("tile_bytes", [20_000, math.inf])
@pytest.mark.parametrize("name", ["joint", "separable"])
def test_nan_in_a_view_reaches_the_gradients(name: str, tile_bytes: float) -> None:
    torch.manual_seed(0)
    critic, (x, y) = CRITICS[name](), views()
    twin = copy.deepcopy(critic).double()
    for one, tensors, size in ((critic, (x, y), tile_bytes), (twin, (x.double(), y.double()), math.inf)):
        pairs.AllPairs(tile_bytes=size)(one, *tensors).log_mean_exp().backward()
    for parameter, exact in zip(critic.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter.grad.isnan(), exact.grad.isnan())


@pytest.mark.parametrize("name", CRITICS)
def test_empty_views_have_empty_scores(name: str) -> None:
    critic, y = CRITICS[name](), torch.ones(3, D)
    assert critic.pairwise(y[:0], y).shape == (0, 3)
    assert critic.pairwise(y, y[:0]).shape == (3, 0)
    assert critic.paired(y[:0], y[:0]).shape == (0,)
