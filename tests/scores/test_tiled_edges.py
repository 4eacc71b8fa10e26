"""Scores in tiles where dense ones have their pitfalls: extremes, precision, transforms, second backward, memory."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import nn

from lightning_mi import MIEstimationModule, Scores, bounds, critics, pairs, regularizers
from lightning_mi.callbacks.stability.window import BlockReader
from lightning_mi.critics import AbstractCritic
from lightning_mi.critics.joint_tiles import NetworkTiles
from lightning_mi.exceptions import DoubleBackwardError
from lightning_mi.metrics import EffectiveSampleFraction
from lightning_mi.scores import tiles
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.tiled import TiledMarginals
from lightning_mi.scores.tiles import AbstractTiles, ProductTiles, tile_rows
from tests.helpers.small_module import draw, make, trainer
from tests.helpers.specs import BOUNDS, BoundSpec, by_name

N = 7


def streams(scores: Scores) -> bool:
    return isinstance(scores._layout.marginals, TiledMarginals)


def columns(n=N):
    return JointColumns(torch.arange(n))


def both(g, h, rows=3):
    """The same scores in tiles and at once."""
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
@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if not spec.has_learned_baseline], ids=by_name)
def test_extreme_scores_are_read_and_differentiated_as_all_at_once(spec: BoundSpec, values) -> None:
    g, h = factors(*values)
    found = []
    for scores in both(g, h):
        terms = spec.make().float()(scores)
        gradients = torch.autograd.grad(terms.objective, [g, h])
        found.append((torch.stack(terms).detach(), *gradients))
    for one, expected in zip(*found, strict=True):
        finite = expected.isfinite()
        assert torch.equal(one.isfinite(), finite)
        scale = expected[finite].abs().max() if finite.any() else 1
        torch.testing.assert_close(one[finite], expected[finite], rtol=1e-4, atol=1e-5 * max(float(scale), 1e-3))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_scores_that_are_not_finite_show_as_they_do_at_once(value) -> None:
    g, h = factors(value, *[1.0] * (N - 1))
    for scores in (both(g, h),):
        for read in ("log_mean_exp", "mean_softplus"):
            streamed, dense = (getattr(one, read)().detach() for one in scores)
            torch.testing.assert_close(streamed, dense, equal_nan=True)


def test_log_mean_exp_equals_numpy() -> None:
    generator = np.random.default_rng(0)
    g, h = generator.normal(size=(2, N, 4))
    t = (g @ h.T)[~np.eye(N, dtype=bool)]
    scores = Scores.from_columns(ProductTiles(torch.tensor(g), torch.tensor(h)), columns(), tile_bytes=3 * 8 * N)
    assert streams(scores)
    assert scores.log_mean_exp().item() == pytest.approx(logsumexp(t) - np.log(len(t)), abs=1e-14)
    assert scores.log_mean_exp(power=2.0).item() == pytest.approx(logsumexp(2 * t) - np.log(len(t)), abs=1e-14)
    assert scores.mean_softplus().item() == pytest.approx(np.logaddexp(0, t).mean(), abs=1e-14)
    assert scores.marginal_values().tolist() == pytest.approx(t.tolist(), abs=1e-14)
    assert scores.marginal_values(at_most=10).tolist() == pytest.approx(t[::5].tolist(), abs=1e-14)


@pytest.mark.parametrize("pairing", [pairs.AllPairs, pairs.TwoViews])
def test_metrics_and_monitors_read_the_same(pairing) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, N, 4, dtype=torch.float64)
    found = []
    for size in (200, math.inf):
        scores = pairing(tile_bytes=size)(critics.InnerProductCritic(), x, y)
        metric, reader = EffectiveSampleFraction(), BlockReader(num_steps=1)
        metric.update(scores)
        reader.add(bounds.DV()(scores), scores)
        found.append((metric.compute().item(), *reader.close(scores, step=1), *map(float, scores.extremes())))
        found[-1] += (scores.num_joint, scores.num_marginal, scores.num_candidates, *scores.marginal_values().tolist())
    assert found[0] == pytest.approx(found[1], rel=1e-6)


class Counted(AbstractTiles):
    """Tiles that count how often they are made."""

    def __init__(self, inner):
        self.inner, self.inputs, self.shape, self.row_bytes = inner, inner.inputs, inner.shape, inner.row_bytes
        self.made = self.pulled = 0

    def matrix(self):
        return self.inner.matrix()

    def at(self, rows, columns):
        return self.inner.at(rows, columns)

    def detach(self):
        return Counted(self.inner.detach())

    def affine(self, scale, offset):
        return Counted(self.inner.affine(scale, offset))

    def tile(self, rows, differentiate):
        self.made += 1
        scores, backward = self.inner.tile(rows, differentiate)

        def counted(weights, into):
            self.pulled += 1
            backward(weights, into)

        return scores, counted


SWEEPS = {"DV": 1, "MINE": 1, "InfoNCE": 1, "NWJ": 1, "TUBA": 1, "JS": 2, "SMILE": 2}


@pytest.mark.parametrize("name", SWEEPS)
def test_bound_regularizer_and_metric_share_their_sweeps(name) -> None:
    tiles = Counted(ProductTiles(*factors(*[1.0] * N)))
    scores = Scores.from_columns(tiles, columns(), tile_bytes=3 * 4 * N)
    bound, regularizer = getattr(bounds, name)(), regularizers.Squared()
    terms = bound(scores)
    EffectiveSampleFraction().update(scores.local())
    (regularizer(terms) - terms.objective).backward()
    assert (tiles.made, tiles.pulled) == (3 * SWEEPS[name], 3)


def test_without_gradient_nothing_is_differentiated() -> None:
    tiles = Counted(ProductTiles(*factors(*[1.0] * N)))
    scores = Scores.from_columns(tiles, columns(), tile_bytes=3 * 4 * N)
    with torch.no_grad():
        terms = [bound(scores) for bound in (bounds.DV(), bounds.InfoNCE(), bounds.JS())]
    assert tiles.pulled == 0
    assert not any(term.requires_grad for one in terms for term in one)
    assert tiles.made == 2 * 3, "all read the first sweep, but for the softplus"


def test_a_gradient_of_a_gradient_is_refused_and_all_scores_at_once_give_it() -> None:
    streamed, dense = both(*(leaves := factors(*[0.5] * N)))
    for read in ("log_mean_exp", "mean_softplus"):
        with pytest.raises(DoubleBackwardError, match=r"create_graph=True.*tile_bytes=math\.inf"):
            torch.autograd.grad(getattr(streamed, read)(), leaves, create_graph=True)
    torch.autograd.grad(dense.log_mean_exp(), leaves, create_graph=True)[0].square().sum().backward()
    assert leaves[0].grad.abs().sum() > 0


def test_function_transforms_and_compilers_see_all_scores() -> None:
    x, y = torch.randn(2, N, 3, dtype=torch.float64)
    pairing = pairs.AllPairs(tile_bytes=50)

    def value(x, y):
        return bounds.DV()(pairing(critics.InnerProductCritic(), x, y)).value

    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    value(a, b).backward()
    torch.testing.assert_close(
        torch.func.grad(lambda x: pairing(critics.InnerProductCritic(), x, y).log_mean_exp())(x),
        torch.autograd.grad(pairing(critics.InnerProductCritic(), a, y).log_mean_exp(), a)[0],
    )
    both = torch.func.vmap(lambda x: pairing(critics.InnerProductCritic(), x, y).log_mean_exp())(
        torch.stack([x, 2 * x])
    )
    for one, factor in zip(both, (1, 2), strict=True):
        torch.testing.assert_close(one, pairing(critics.InnerProductCritic(), factor * x, y).log_mean_exp())


@pytest.mark.parametrize("critic", ["separable", "joint", "inner product"])
def test_autocast_gives_the_scores_that_it_gives_at_once(critic) -> None:
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
        leaves = [*made.parameters()] or [x, y]
        gradient = torch.autograd.grad(terms.objective, leaves, allow_unused=True)
        found.append((terms.log_normalizer, torch.cat([one.flatten() for one in gradient if one is not None])))
        assert streams(scores) == (size == 2000)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-3)
    assert torch.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.999


def test_sums_asked_under_autocast_are_not_rounded() -> None:
    g, h = factors(*[0.5] * N)
    expected = torch.autograd.grad(both(g, h)[1].log_mean_exp(), [g, h])
    scores = both(g, h)[0]
    with torch.autocast("cpu", torch.bfloat16):
        value = scores.log_mean_exp()
        found = torch.autograd.grad(value, [g, h])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_accumulate_and_a_graph_can_be_kept() -> None:
    g, h = factors(*[0.5] * N)
    expected = torch.autograd.grad(both(g, h)[1].log_mean_exp(), [g, h])
    value = both(g, h)[0].log_mean_exp()
    value.backward(retain_graph=True)
    value.backward()
    torch.testing.assert_close(g.grad, 2 * expected[0])
    torch.testing.assert_close(h.grad, 2 * expected[1])


@pytest.mark.parametrize("read", ["log_mean_exp", "mean_softplus", "row_means"])
def test_no_circle_keeps_the_inputs_alive(read) -> None:
    g, h = factors(*[0.5] * N)
    kept = 2 * g
    scores = both(kept, h)[0]
    result = getattr(scores, read)()
    alive = weakref.ref(kept)
    gc.disable()
    try:
        del kept, scores, result
        assert alive() is None
    finally:
        gc.enable()


def test_same_sum_asked_twice_is_the_same() -> None:
    scores = both(*factors(*[0.5] * N))[0]
    assert scores.log_mean_exp() is scores.log_mean_exp()
    assert scores.log_mean_exp(clip=1.0) is scores.log_mean_exp(clip=1.0)
    assert scores.log_mean_exp(clip=1.0) is not scores.log_mean_exp(clip=2.0)
    assert scores.log_mean_exp(offset=torch.zeros(N)) is not scores.log_mean_exp()


class Distance(AbstractCritic):
    """A critic of one's own, that does not say how all pairs are scored."""

    def paired(self, x, y):
        return -(x - y).square().sum(-1)

    def pairwise(self, x, y):
        return -torch.cdist(x, y).square()


@pytest.mark.parametrize("critic", [Distance(), critics.CalibratedCritic(Distance())])
def test_critic_without_tiles_is_scored_at_once(critic) -> None:
    x, y = torch.randn(2, N, 3)
    for pairing in (pairs.AllPairs, pairs.TwoViews):
        assert not streams(pairing(tile_bytes=1)(critic, x, y))


def test_by_default_small_batches_are_scored_at_once_and_large_ones_in_tiles() -> None:
    def products(n):
        return ProductTiles(torch.zeros(n, 1), torch.zeros(n, 1))

    def networks(n, *rest):
        return NetworkTiles(torch.zeros(n, 256), torch.zeros(n, 256), nn.Sequential(*rest))

    network = [nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)]
    assert [tile_rows(networks(n, *network), None) for n in (64, 128, 512)] == [None, None, 2]
    assert [tile_rows(products(n), None) for n in (64, 1024, 1025, 4096)] == [None, None, 1025, 256]
    assert tile_rows(products(4096), math.inf) is None
    assert tile_rows(products(4096), 1) == 1


def test_wrong_tile_bytes_are_refused_at_once() -> None:
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
def test_module_trains_alike_in_tiles_and_compiled() -> None:
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


def test_pointwise_information_is_predicted_alike() -> None:
    batch = next(iter(draw(N)))
    for bound in (bounds.InfoNCE(), bounds.DV()):
        read = [
            MIEstimationModule(critics.InnerProductCritic(), bound, pairs=pairs.AllPairs(tile_bytes=size)).predict_step(
                batch
            )["pmi"]
            for size in (50, math.inf)
        ]
        torch.testing.assert_close(*read)


@pytest.mark.parametrize("half", [False, True])
def test_large_factors_have_the_gradient_of_small_ones(half, monkeypatch) -> None:
    """Whose products are added in place, as one more of them would take too much memory."""
    torch.manual_seed(0)
    x, y = (torch.randn(2, 40, 8, dtype=torch.float32 if half else torch.float64) * 0.3).requires_grad_().unbind()
    found = []
    for limit in (2**20, 0):
        monkeypatch.setattr(tiles, "_TILE_BYTES", limit)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            scores = pairs.AllPairs(tile_bytes=1500)(critics.InnerProductCritic(), x, y)
            found.append(torch.autograd.grad(bounds.JS()(scores).objective, (x, y)))
        assert streams(scores)
    torch.testing.assert_close(found[0], found[1], rtol=1e-2 if half else 1e-12, atol=1e-4 if half else 1e-14)
