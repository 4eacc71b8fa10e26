"""Tiled scores against dense ones: terms, penalties and gradients in float64."""

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from lightning_mi import Scores, bounds, critics, pairs, regularizers
from lightning_mi.critics.joint_tiles import NetworkTiles
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.pair_functions import SquaredSigmoid
from lightning_mi.scores.tiled import TiledMarginals
from tests.helpers import critic_specs
from tests.helpers.specs import BOUNDS, BoundSpec

N, DIM = 7, 2  # rows of a tile do not divide the rows of a batch


def _calibrated(critic, **kwargs):
    made = critics.CalibratedCritic(critic, offset_unit=2.0, **kwargs)
    with torch.no_grad():
        for name, value in (("offset", 0.15), ("log_scale", 0.3)):
            if getattr(made, name) is not None:
                getattr(made, name).fill_(value)
    return made


CRITICS: dict[str, Callable[[], critics.AbstractCritic]] = {
    **{spec.name: partial(spec.make, DIM) for spec in critic_specs.CRITICS if spec.has_tiles},
    "calibrated separable": lambda: _calibrated(CRITICS["separable"](), scale=True),
    "twice calibrated": lambda: _calibrated(_calibrated(CRITICS["bilinear"]()), scale=True),
    "scaled joint": lambda: _calibrated(CRITICS["joint"](), offset=False, scale=True),
    "twice calibrated joint": lambda: _calibrated(_calibrated(CRITICS["joint"](), scale=True), scale=True),
}
PAIRINGS = {"AllPairs": pairs.AllPairs, "TwoViews": pairs.TwoViews}
REGULARIZERS = {
    "none": None,
    "squared": partial(regularizers.Squared, weight=0.3),
    "huber, linear": partial(regularizers.Huber, weight=0.3, scale="linear", delta=0.5),
}


def _cases():
    """Each bound with inner-product and with joint tiles; every critic with every pairing and regularizer."""
    joint_critics = [name for name in CRITICS if "joint" in name]
    other_critics = [name for name in CRITICS if "joint" not in name]
    for index, spec in enumerate(BOUNDS):
        for shift, names in enumerate((other_critics, joint_critics)):
            pairing = list(PAIRINGS)[(index + shift) % 2]
            yield spec, names[index % len(names)], pairing, list(REGULARIZERS)[(index + shift) % 3]


CASES = list(_cases())


def views(dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(3)
    x = scale * torch.randn(N, DIM, generator=generator, dtype=torch.float64)
    y = 0.8 * x + scale * 0.6 * torch.randn(N, DIM, generator=generator, dtype=torch.float64)
    return [view.to(dtype).requires_grad_() for view in (x, y)]


def critic_of(name):
    torch.manual_seed(1)
    return CRITICS[name]().double()


def tiny(critic, x, y, rows=3):
    """The bytes of a tile with this many rows."""
    return rows * critic.tiles(x, y).row_bytes + 1


def terms_and_gradient(bound, critic, pairing, regularizer, tile_bytes):
    """Terms and penalty; gradients of the loss in x, y, the critic and the bound."""
    bound, critic, (x, y) = copy.deepcopy(bound), copy.deepcopy(critic), views()
    scores = pairing(tile_bytes=tile_bytes)(critic, x, y)
    terms = bound(scores)
    penalty = terms.value.new_zeros(()) if regularizer is None else regularizer()(terms)
    (penalty - terms.objective).backward()
    leaves = [x, y, *critic.parameters(), *bound.parameters()]
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return scores, torch.stack([*terms, penalty]).detach(), torch.cat([grad.flatten() for grad in gradients])


@pytest.mark.parametrize(
    ("spec", "critic", "pairing", "regularizer"),
    CASES,
    ids=[f"{spec.name}-{'-'.join(names)}" for spec, *names in CASES],
)
def test_tiled_terms_and_gradients_equal_the_dense_ones(spec: BoundSpec, critic, pairing, regularizer):
    made, regularizer = critic_of(critic), REGULARIZERS[regularizer]
    tile_bytes = tiny(made, *views())
    bound = spec.make().double()
    tiled, terms, gradient = terms_and_gradient(bound, made, PAIRINGS[pairing], regularizer, tile_bytes)
    dense, expected_terms, expected = terms_and_gradient(bound, made, PAIRINGS[pairing], regularizer, math.inf)
    assert isinstance(tiled._layout.marginals, TiledMarginals)
    assert not isinstance(dense._layout.marginals, TiledMarginals)
    assert expected.norm() > 1e-3
    assert (terms - expected_terms).abs().max() <= 1e-12 * expected_terms.abs().max().clamp(min=1)
    assert (gradient - expected).abs().max() <= 1e-12 * expected.abs().max().clamp(min=1)


REDUCTIONS = {
    "log-mean-exp": lambda scores, offset: scores.log_mean_exp(),
    "with an offset": lambda scores, offset: scores.log_mean_exp(offset=offset),
    "with a clip": lambda scores, offset: scores.log_mean_exp(clip=0.8),
    "second moment": lambda scores, offset: scores.log_mean_exp(power=2.0),
    "all of these": lambda scores, offset: scores.log_mean_exp(offset=offset, clip=0.8, power=-0.5),
    "softplus": lambda scores, offset: scores.mean_softplus(),
    "shifted softplus": lambda scores, offset: scores.mean_softplus(1.3),
    "Brier score": lambda scores, offset: scores.mean_over_marginal(SquaredSigmoid(-0.7)),
    "marginal rows": lambda scores, offset: scores.row_log_mean_exp(joint=False).square().sum(),
    "all rows": lambda scores, offset: sum(scores.row_log_mean_exp(joint=joint).exp().sum() for joint in (True, False)),
    "rows": lambda scores, offset: scores.row_log_mean_exp().square().sum(),
    "means of rows": lambda scores, offset: scores.row_means()[0].square() + scores.row_means()[1],
    "values": lambda scores, offset: scores.marginal_values().square().sum(),
    "several": lambda scores, offset: sum(
        (index + 1.0) * scores.log_mean_exp(clip=clip) for index, clip in enumerate((0.2, 0.5, 0.8, 1.1, 1.4, None))
    ),
}


@pytest.mark.parametrize(
    ("critic", "pairing"), [("calibrated separable", "TwoViews"), ("twice calibrated joint", "AllPairs")]
)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_reduction_passes_gradcheck(critic, reduction, pairing):
    made, (x, y) = critic_of(critic), views()
    offset = torch.linspace(-1, 1, N * (1 + (pairing == "TwoViews")), dtype=torch.float64, requires_grad=True)
    parameters = dict(made.named_parameters())

    def of(tile_bytes, x, y, offset):
        scores = PAIRINGS[pairing](tile_bytes=tile_bytes)(made, x, y)
        scores.log_mean_exp(clip=9.0)  # so that the gradient of every other reduction is deferred
        return REDUCTIONS[reduction](scores, offset)

    torch.autograd.gradcheck(partial(of, tiny(made, x, y)), (x, y, offset), fast_mode=True)
    leaves = [x, y, offset, *parameters.values()]
    gradients: list[tuple[torch.Tensor | None, ...]] = [
        torch.autograd.grad(of(size, x, y, offset), leaves, allow_unused=True) for size in (tiny(made, x, y), math.inf)
    ]
    for gradient, other in zip(*gradients, strict=True):
        expected = torch.zeros(()) if other is None else other
        torch.testing.assert_close(torch.zeros(()) if gradient is None else gradient, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("reduction", ["log-mean-exp", "with an offset", "means of rows"])
def test_gradients_computed_in_forward_pass_gradcheck(reduction):
    made, (x, y) = critic_of("calibrated separable"), views()
    offset = torch.linspace(-1, 1, N, dtype=torch.float64, requires_grad=True)
    tile_bytes = tiny(made, x, y)

    def of(x, y, offset, *parameters):
        return REDUCTIONS[reduction](pairs.AllPairs(tile_bytes=tile_bytes)(made, x, y), offset)

    torch.autograd.gradcheck(of, (x, y, offset, *made.parameters()))


@pytest.mark.parametrize("frozen", ["x", "y", "critic"])
@pytest.mark.parametrize(
    ("name", "critic"),
    [("DV", "inner product"), ("SMILE", "twice calibrated"), ("InfoNCE", "joint"), ("SMILE", "twice calibrated joint")],
)
def test_frozen_inputs_get_no_gradient(name, critic, frozen):
    spec = next(spec for spec in BOUNDS if spec.name == name)
    made, (x, y) = critic_of(critic), views()
    tile_bytes = tiny(made, x, y)
    for leaf in {"x": [x], "y": [y], "critic": list(made.parameters())}[frozen]:
        leaf.requires_grad_(False)
    leaves = [leaf for leaf in (x, y, *made.parameters()) if leaf.requires_grad]
    bound = spec.make().double()
    tiled, dense = (
        torch.autograd.grad(bound(pairs.AllPairs(tile_bytes=size)(made, x, y)).value, leaves, allow_unused=True)
        for size in (tile_bytes, math.inf)
    )
    for actual, expected in zip(tiled, dense, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["DV", "SMILE(js)", "InfoNCE", "TUBA(learned)"])
def test_joint_pairs_may_be_in_any_column(name):
    """More columns than rows, as with the candidates of other ranks."""
    spec = next(spec for spec in BOUNDS if spec.name == name)
    x, y = views()
    columns = JointColumns(torch.tensor([4, 0, 3]), excluded=torch.tensor([1, 2, 6]))
    tiles = critics.InnerProductCritic().tiles(x[:3], y)
    bound = spec.make().double().eval()
    found = []
    for size in (tiles.row_bytes, math.inf):
        terms = bound(Scores.from_columns(tiles, columns, y=y, tile_bytes=size))
        found.append((torch.stack(terms), *torch.autograd.grad(terms.objective, [x, y], retain_graph=True)))
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_learned_baseline_has_an_exact_deferred_gradient():
    made, (x, y) = critic_of("bilinear"), views()
    baseline = nn.Linear(DIM, 1).double()
    found = []
    for size in (tiny(made, x, y), math.inf):
        scores = pairs.AllPairs(tile_bytes=size)(made, x, y)
        loss = bounds.JS()(scores).objective + bounds.TUBA(baseline)(scores).objective
        found.append(torch.autograd.grad(loss, [x, y, *baseline.parameters()]))
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_offset_alone_may_need_a_gradient():
    made = critic_of("twice calibrated joint").requires_grad_(False)
    made.offset.requires_grad_(True)
    x, y = (view.detach() for view in views())
    found = [
        torch.autograd.grad(bounds.JS()(pairs.AllPairs(tile_bytes=size)(made, x, y)).objective, made.offset)[0]
        for size in (tiny(made, x, y), math.inf)
    ]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_network_may_need_its_scores_in_backward():
    """The sigmoid saves its output, which the reductions overwrite in a tile."""
    torch.manual_seed(0)
    hx, hy = torch.randn(2, N, 3, dtype=torch.float64).requires_grad_().unbind()
    network = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()).double()
    tiles, columns = NetworkTiles(hx, hy, network), JointColumns(torch.arange(N))
    leaves = [hx, hy, *network.parameters()]
    found = [
        torch.autograd.grad(Scores.from_columns(tiles, columns, tile_bytes=size).log_mean_exp(), leaves)
        for size in (3 * tiles.row_bytes + 1, math.inf)
    ]
    for tiled, dense in zip(*found, strict=True):
        torch.testing.assert_close(tiled, dense, rtol=1e-12, atol=1e-12)
