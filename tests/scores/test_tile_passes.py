"""Passes over the tiles: how many, what they hold, and that results are reused."""

import gc
import weakref

import pytest
import torch

from lightning_mi import Scores, bounds, regularizers
from lightning_mi.metrics import EffectiveSampleFraction
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.tiles import AbstractTiles, ProductTiles

N = 7


def factors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(N, 3, generator=generator).requires_grad_() for _ in range(2)]


def scores_of(tiles, rows=3):
    return Scores.from_columns(tiles, JointColumns(torch.arange(N)), tile_bytes=rows * 4 * N)


class Counted(AbstractTiles):
    """Tiles that count how often they are computed and differentiated."""

    def __init__(self, inner):
        self.inner, self.inputs, self.shape, self.row_bytes = inner, inner.inputs, inner.shape, inner.row_bytes
        self.computed = self.differentiated = 0

    def matrix(self):
        return self.inner.matrix()

    def at(self, rows, columns):
        return self.inner.at(rows, columns)

    def detach(self):
        return Counted(self.inner.detach())

    def tile(self, rows, differentiate):
        self.computed += 1
        scores, backward = self.inner.tile(rows, differentiate)

        def counted(weights, into):
            self.differentiated += 1
            backward(weights, into)

        return scores, counted


PASSES = dict.fromkeys(["DV", "MINE", "InfoNCE", "NWJ", "TUBA"], 1)
PASSES |= dict.fromkeys(["JS", "SMILE", "NCE", "RPC", "Hellinger", "DCL"], 2)


@pytest.mark.parametrize("name", PASSES)
def test_bound_regularizer_and_metric_share_passes(name) -> None:
    tiles = Counted(ProductTiles(*factors()))
    scores = scores_of(tiles)
    bound, regularizer = getattr(bounds, name)(), regularizers.Squared()
    terms = bound(scores)
    EffectiveSampleFraction().update(scores.local())
    (regularizer(terms) - terms.objective).backward()
    assert (tiles.computed, tiles.differentiated) == (3 * PASSES[name], 3)


def test_without_gradient_nothing_is_differentiated() -> None:
    tiles = Counted(ProductTiles(*factors()))
    scores = scores_of(tiles)
    with torch.no_grad():
        terms = [bound(scores) for bound in (bounds.DV(), bounds.InfoNCE(), bounds.JS())]
    assert tiles.differentiated == 0
    assert not any(term.requires_grad for batch_terms in terms for term in batch_terms)
    assert tiles.computed == 2 * 3, "the softplus needs a second pass"


def test_backward_can_run_twice() -> None:
    g, h = factors()
    expected = torch.autograd.grad(Scores.from_matrix(g @ h.T).log_mean_exp(), [g, h])
    value = scores_of(ProductTiles(g, h)).log_mean_exp()
    (2 * value).backward(retain_graph=True)
    (3 * value).backward()
    torch.testing.assert_close(g.grad, 5 * expected[0])
    torch.testing.assert_close(h.grad, 5 * expected[1])


@pytest.mark.parametrize("read", ["log_mean_exp", "mean_softplus", "row_means"])
def test_no_reference_cycle_holds_the_inputs(read) -> None:
    g, h = factors()
    factor = 2 * g
    scores = scores_of(ProductTiles(factor, h))
    result = getattr(scores, read)()
    alive = weakref.ref(factor)
    gc.disable()
    try:
        del factor, scores, result
        assert alive() is None
    finally:
        gc.enable()


def test_a_reduction_is_computed_once() -> None:
    scores = scores_of(ProductTiles(*factors()))
    assert scores.log_mean_exp() is scores.log_mean_exp()
    assert scores.log_mean_exp(clip=1.0) is scores.log_mean_exp(clip=1.0)
    assert scores.log_mean_exp(clip=1.0) is not scores.log_mean_exp(clip=2.0)
    assert scores.log_mean_exp(offset=torch.zeros(N)) is not scores.log_mean_exp()


def test_order_of_the_reductions_does_not_matter() -> None:
    g, h = factors()
    arguments = [{}, {"power": 2.0}, {"clip": 0.5}, {"offset": torch.arange(float(N))}, {"power": 2.0, "clip": 0.5}]
    for context in (torch.no_grad, torch.enable_grad):
        with context():
            expected = [scores_of(ProductTiles(g, h)).log_mean_exp(**given).item() for given in arguments]
            for order in (range(5), reversed(range(5))):
                scores = scores_of(ProductTiles(g, h))
                for i in order:
                    assert scores.log_mean_exp(**arguments[i]).item() == pytest.approx(expected[i], abs=1e-6)
                    assert scores.local().log_mean_exp().item() == pytest.approx(expected[0], abs=1e-6)
