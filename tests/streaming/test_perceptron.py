"""Joint critics in tiles: perceptrons by hand, other networks by autograd, and both as all scores at once."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_mi import bounds, critics, pairs, regularizers
from lightning_mi.matrix_product import matrix_product, weight_gradient
from lightning_mi.perceptron import Perceptron

N, H = 7, 4


def shared() -> nn.Sequential:
    layer = nn.Linear(H, H)
    return nn.Sequential(nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(H, 1))


def hooked() -> nn.Sequential:
    network = nn.Sequential(nn.ReLU(), nn.Linear(H, 1))
    network[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return network


BY_HAND = {
    "one hidden layer": lambda: nn.Sequential(nn.ReLU(), nn.Linear(H, 1)),
    "no bias": lambda: nn.Sequential(nn.ReLU(), nn.Linear(H, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False)),
    "deep": lambda: nn.Sequential(
        nn.ReLU(), nn.Linear(H, 3), nn.ReLU(inplace=True), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)
    ),
    "linear first": lambda: nn.Sequential(nn.Linear(H, 3), nn.ReLU(), nn.Linear(3, 1)),
}
BY_AUTOGRAD = {
    "tanh": lambda: nn.Sequential(nn.Tanh(), nn.Linear(H, 3), nn.Tanh(), nn.Linear(3, 1)),
    "normalized": lambda: nn.Sequential(nn.ReLU(), nn.LayerNorm(H), nn.ReLU(), nn.Linear(H, 1)),
    "shared layer": shared,
    "hook": hooked,
    "weight norm": lambda: nn.Sequential(nn.ReLU(), parametrizations.weight_norm(nn.Linear(H, 1))),
    "not a sequence": lambda: nn.Linear(H, 1),
}


def critic_of(rest: nn.Module) -> critics.JointCritic:
    critic = critics.JointCritic(2, 2, hidden=(H,))
    critic.rest = rest
    return critic.double()


def read(critic, bound, tile_bytes, x, y):
    critic = copy.deepcopy(critic)
    terms = bound(pairs.AllPairs(tile_bytes=tile_bytes)(critic, x, y))
    (regularizers.Squared(weight=0.3)(terms, bound) - terms.objective).backward()
    return torch.stack(terms).detach(), [p.grad for p in critic.parameters()]


@pytest.mark.parametrize("name", [*BY_HAND, *BY_AUTOGRAD])
@pytest.mark.parametrize("bound", [bounds.DV, bounds.JS])
def test_any_network_is_read_and_differentiated_as_all_scores_at_once(name, bound) -> None:
    torch.manual_seed(0)
    critic = critic_of((BY_HAND | BY_AUTOGRAD)[name]())
    assert (Perceptron.of(critic.rest) is not None) == (name in BY_HAND)
    if name == "no bias":
        critic.rest[1].weight.requires_grad_(False)
    x, y = torch.randn(2, N, 2, dtype=torch.float64)
    (terms, gradients), (expected_terms, expected) = (read(critic, bound(), size, x, y) for size in (800, math.inf))
    torch.testing.assert_close(terms, expected_terms, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", [(3, 4, 5), (128, 96, 160), (512, 96, 64), (32, 512, 128), (1, 2000, 600)])
def test_matrix_products_equal_numpy(shape, transposed) -> None:
    n, k, m = shape
    a, b = np.random.default_rng(0).normal(size=(n, k)), np.random.default_rng(1).normal(size=(k, m))
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        left, right = (
            torch.tensor(one.T if turned else one, dtype=dtype) for one, turned in zip((a, b), transposed, strict=True)
        )
        left, right = (one.T if turned else one for one, turned in zip((left, right), transposed, strict=True))
        found = matrix_product(left, right)
        assert found.dtype == dtype
        np.testing.assert_allclose(found.numpy(), a @ b, rtol=0, atol=tolerance * k)


@pytest.mark.parametrize("layout", ["as it is", "transposed", "with gaps"])
@pytest.mark.parametrize("shape", [(7, 4, 5), (4096, 64, 96), (3000, 96, 64), (9001, 32, 96), (4096, 8, 96)])
def test_gradients_of_weights_equal_numpy(shape, layout) -> None:
    n, outputs, inputs = shape
    a, b = (np.random.default_rng(seed).normal(size=(n, width)) for seed, width in ((0, outputs), (1, inputs)))
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-6)):
        upstream, x = (torch.tensor(one, dtype=dtype) for one in (a, b))
        if layout == "transposed":
            upstream, x = (one.T.contiguous().T for one in (upstream, x))
        if layout == "with gaps":
            upstream, x = (torch.stack([one, one], dim=2)[..., 0] for one in (upstream, x))
        found = weight_gradient(upstream, x)
        assert found.dtype == dtype
        np.testing.assert_allclose(found.numpy(), a.T @ b, rtol=0, atol=tolerance * n)


def test_products_of_views_with_gaps_equal_numpy() -> None:
    wide = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(
        matrix_product(wide[:, :100], wide[:100, ::2]), wide[:, :100].numpy() @ wide[:100, ::2].numpy(), atol=1e-3
    )


@pytest.mark.parametrize("critic", [critics.JointCritic(8, 8, hidden=(64, 64)), critics.InnerProductCritic()])
def test_large_tiles_are_as_exact_as_single_precision(critic) -> None:
    """Large enough for oneDNN, and for more than one block of columns."""
    torch.manual_seed(0)
    n = 200 if isinstance(critic, critics.JointCritic) else 4500
    x, y = (0.3 * torch.randn(2, n, 8)).requires_grad_().unbind()
    found = []
    for size, dtype in ((2**22, torch.float32), (2**22, torch.float64)):
        made, (a, b) = copy.deepcopy(critic).to(dtype), (x.detach().to(dtype), y.detach().to(dtype))
        leaves = [a.requires_grad_(), b.requires_grad_(), *made.parameters()]
        value = bounds.InfoNCE()(pairs.AllPairs(tile_bytes=size)(made, a, b)).value
        gradients = torch.autograd.grad(value, leaves)
        found.append(torch.cat([value.reshape(1), *(one.flatten() for one in gradients)]).detach().double())
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-6)


def test_rows_can_be_differentiated_twice_over_a_kept_graph() -> None:
    x, y = (torch.randn(N, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = bounds.InfoNCE()(pairs.AllPairs(tile_bytes=200)(critics.InnerProductCritic(), x, y)).value
    first, second = (torch.autograd.grad(3 * value, [x, y], retain_graph=True) for _ in range(2))
    dense = bounds.InfoNCE()(pairs.AllPairs(tile_bytes=math.inf)(critics.InnerProductCritic(), x, y)).value
    expected = torch.autograd.grad(3 * dense, [x, y])
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second, expected)
