"""Tiled scores at the edges: extremes, precision, transforms, double backward, memory, defaults."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import nn

from lightning_mi import Scores, bounds, critics, pairs, regularizers
from lightning_mi.callbacks.stability.window import BlockReader
from lightning_mi.critics import AbstractCritic
from lightning_mi.critics.joint_tiles import NetworkTiles
from lightning_mi.exceptions import DoubleBackwardError
from lightning_mi.metrics import EffectiveSampleFraction
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.tiled import TiledMarginals
from lightning_mi.scores.tiles import ProductTiles, tile_rows
from tests.helpers.small_module import draw, make, trainer
from tests.helpers.specs import BOUNDS

N = 7


def is_tiled(scores: Scores) -> bool:
    return isinstance(scores._layout.marginals, TiledMarginals)


def columns(n=N):
    return JointColumns(torch.arange(n))


def both(g, h, rows=3):
    """The same scores, tiled and dense."""
    tiles = ProductTiles(g, h)
    return [Scores.from_columns(tiles, columns(len(g)), y=h, tile_bytes=size) for size in (rows * 4 * len(h), math.inf)]


def factors(*values, seed=0, n=N):
    """Factors whose scores of row i are close to values[i]."""
    g = torch.zeros(n, 3)
    g[:, 0] = torch.tensor(values)
    g[:, 1] = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    h = torch.ones(n, 3)
    h[:, 1] = torch.randn(n, generator=torch.Generator().manual_seed(seed + 1))
    return g.requires_grad_(), h.requires_grad_()


@pytest.mark.filterwarnings("ignore::lightning_mi.exceptions.MINumericalWarning")
@pytest.mark.parametrize(
    "values",
    [(1e4,) * N, (-1e4,) * N, (1e4, -1e4, 0.0, 1e4, 3.0, -50.0, 80.0), (1e30, -1e30, 0, 0, 0, 0, 0), (90.0,) * N],
    ids=str,
)
# Between them they use every reduction: plain, clipped, softplus, Brier score, rows, and several together.
@pytest.mark.parametrize(
    "name", ["DV", "SMILE(js)", "InfoNCE", "NWJ(cap=None)", "ReleasedTUBA", "NCE", "RPC", "Hellinger", "DCL"]
)
def test_extreme_scores_give_the_dense_terms_and_gradients(name: str, values) -> None:
    spec = next(spec for spec in BOUNDS if spec.name == name)
    g, h = factors(*values)
    found = []
    for scores in both(g, h):
        terms = spec.make().float()(scores)
        gradients = torch.autograd.grad(terms.objective, [g, h])
        found.append((torch.stack(terms).detach(), *gradients))
    for actual, expected in zip(*found, strict=True):
        finite = expected.isfinite()
        assert torch.equal(actual.isfinite(), finite)
        scale = expected[finite].abs().max() if finite.any() else 1
        torch.testing.assert_close(actual[finite], expected[finite], rtol=1e-4, atol=1e-5 * max(float(scale), 1e-3))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_non_finite_scores_give_the_dense_reductions(value) -> None:
    g, h = factors(value, *[1.0] * (N - 1))
    for read in ("log_mean_exp", "mean_softplus", "row_log_mean_exp", "extremes"):
        tiled, dense = (getattr(scores, read)() for scores in both(g, h))
        torch.testing.assert_close(tiled, dense, equal_nan=True)


def test_reductions_equal_numpy() -> None:
    generator = np.random.default_rng(0)
    g, h = generator.normal(size=(2, N, 4))
    t = (g @ h.T)[~np.eye(N, dtype=bool)]
    scores = Scores.from_columns(ProductTiles(torch.tensor(g), torch.tensor(h)), columns(), tile_bytes=3 * 8 * N)
    assert is_tiled(scores)
    assert scores.log_mean_exp().item() == pytest.approx(logsumexp(t) - np.log(len(t)), abs=1e-14)
    assert scores.log_mean_exp(power=2.0).item() == pytest.approx(logsumexp(2 * t) - np.log(len(t)), abs=1e-14)
    assert scores.mean_softplus().item() == pytest.approx(np.logaddexp(0, t).mean(), abs=1e-14)
    assert scores.marginal_values().tolist() == pytest.approx(t.tolist(), abs=1e-14)
    assert scores.marginal_values(at_most=10).tolist() == pytest.approx(t[::5].tolist(), abs=1e-14)


@pytest.mark.parametrize("pairing", [pairs.AllPairs, pairs.TwoViews])
def test_metrics_and_monitors_are_those_of_dense_scores(pairing) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, N, 4, dtype=torch.float64)
    found = []
    for size in (200, math.inf):
        scores = pairing(tile_bytes=size)(critics.InnerProductCritic(), x, y)
        metric, reader = EffectiveSampleFraction(), BlockReader(num_steps=1)
        metric.update(scores)
        reader.add(bounds.DV()(scores), scores)
        block = reader.close(scores, step=1)
        assert block is not None
        found.append((metric.compute().item(), *block, *map(float, scores.extremes())))
        found[-1] += (scores.num_joint, scores.num_marginal, scores.num_candidates, *scores.marginal_values().tolist())
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_double_backward_is_an_error_unless_dense() -> None:
    tiled, dense = both(*(leaves := factors(*[0.5] * N)))
    for read in ("log_mean_exp", "mean_softplus"):
        with pytest.raises(DoubleBackwardError, match=r"create_graph=True.*tile_bytes=math\.inf"):
            torch.autograd.grad(getattr(tiled, read)(), leaves, create_graph=True)
    torch.autograd.grad(dense.log_mean_exp(), leaves, create_graph=True)[0].square().sum().backward()
    assert leaves[0].grad.abs().sum() > 0


def test_function_transforms_use_dense_scores() -> None:
    x, y = torch.randn(2, N, 3, dtype=torch.float64)
    pairing = pairs.AllPairs(tile_bytes=50)

    a = x.clone().requires_grad_()
    torch.testing.assert_close(
        torch.func.grad(lambda x: pairing(critics.InnerProductCritic(), x, y).log_mean_exp())(x),
        torch.autograd.grad(pairing(critics.InnerProductCritic(), a, y).log_mean_exp(), a)[0],
    )
    stacked = torch.func.vmap(lambda x: pairing(critics.InnerProductCritic(), x, y).log_mean_exp())(
        torch.stack([x, 2 * x])
    )
    for actual, factor in zip(stacked, (1, 2), strict=True):
        torch.testing.assert_close(actual, pairing(critics.InnerProductCritic(), factor * x, y).log_mean_exp())


@pytest.mark.parametrize("critic", ["separable", "joint", "inner product"])
def test_autocast_gives_the_dense_terms_and_gradients(critic) -> None:
    torch.manual_seed(0)
    made = {"separable": critics.SeparableCritic(8, 8), "joint": critics.JointCritic(8, 8, hidden=(16, 8))}.get(
        critic, critics.InnerProductCritic()
    )
    x, y = torch.randn(2, 33, 8).requires_grad_().unbind()
    found = []
    for size in (2000, math.inf):
        with torch.autocast("cpu", torch.bfloat16):
            scores = pairs.AllPairs(tile_bytes=size)(made, x, y)
            terms = bounds.DV()(scores)
        assert terms.value.dtype == torch.float32
        leaves: list[torch.Tensor] = [*made.parameters()] or [x, y]
        gradient: tuple[torch.Tensor | None, ...] = torch.autograd.grad(terms.objective, leaves, allow_unused=True)
        found.append((terms.log_normalizer, torch.cat([part.flatten() for part in gradient if part is not None])))
        assert is_tiled(scores) == (size == 2000)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-3)
    assert torch.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.999


def test_reductions_under_autocast_are_not_rounded() -> None:
    g, h = factors(*[0.5] * N)
    expected = torch.autograd.grad(both(g, h)[1].log_mean_exp(), [g, h])
    scores = both(g, h)[0]
    with torch.autocast("cpu", torch.bfloat16):
        value = scores.log_mean_exp()
        found = torch.autograd.grad(value, [g, h])
    for actual, other in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, other)


class Distance(AbstractCritic):
    """A custom critic without tiles."""

    def paired(self, x, y):
        return -(x - y).square().sum(-1)

    def pairwise(self, x, y):
        return -torch.cdist(x, y).square()


@pytest.mark.parametrize("critic", [Distance(), critics.CalibratedCritic(Distance())])
def test_critics_without_tiles_give_dense_scores(critic) -> None:
    x, y = torch.randn(2, N, 3)
    for pairing in (pairs.AllPairs, pairs.TwoViews):
        assert not is_tiled(pairing(tile_bytes=1)(critic, x, y))


def test_only_large_batches_are_tiled_by_default() -> None:
    def products(n):
        return ProductTiles(torch.zeros(n, 1), torch.zeros(n, 1))

    def networks(n, *rest):
        return NetworkTiles(torch.zeros(n, 256), torch.zeros(n, 256), nn.Sequential(*rest))

    network = [nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)]
    assert [tile_rows(networks(n, *network), None) for n in (64, 128, 512)] == [None, None, 2]
    assert [tile_rows(products(n), None) for n in (64, 1024, 1025, 4096)] == [None, None, 1025, 256]
    assert tile_rows(products(4096), math.inf) is None
    assert tile_rows(products(4096), 1) == 1


def test_invalid_tile_bytes_are_an_error() -> None:
    for wrong in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"tile_bytes=.*positive number of bytes"):
            pairs.AllPairs(tile_bytes=wrong)
    with pytest.raises(ValueError, match="candidates `y`"):
        Scores.from_columns(
            ProductTiles(torch.ones(3, 1), torch.ones(3, 1)), columns(3), y=torch.ones(2, 1), tile_bytes=1
        )
    with pytest.raises(TypeError, match="floating-point"):
        pairs.AllPairs()(critics.InnerProductCritic(), torch.ones(3, 1, dtype=torch.long), torch.ones(3, 1).long())


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_module_trains_the_same_tiled_and_compiled() -> None:
    found = []
    for size, compiled in ((math.inf, False), (64, False), (64, True)):
        critic = critics.CalibratedCritic(critics.SeparableCritic(3, 3, hidden=(8,), embed_dim=4), scale=True)
        module = make(
            bounds.SMILE(),
            critic=critic,
            pairs=pairs.AllPairs(tile_bytes=size),
            regularizer=regularizers.Squared(),
            encoder=nn.Linear(3, 3),
        )
        if compiled:
            module.encoders[0].compile(backend="eager")
        trainer(max_steps=6, accumulate_grad_batches=2).fit(module, draw(*[N] * 12))
        found.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[2], found[1])
