"""LocalGlobal: locations against the global features of every sample."""

import math

import numpy as np
import pytest
import torch

from lightning_mi import bounds, critics, pairs
from lightning_mi.scores.tiled import TiledMarginals
from lightning_mi.training.prediction import PointwiseMI
from tests.helpers.gaussian_critic import Exact
from tests.helpers.pairs_by_definition import Positions, decode
from tests.helpers.row_loops import infonce


def views(n=3, dim=2, height=2, width=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    local = torch.randn(n, dim, height, width, generator=generator, dtype=torch.float64)
    return local.requires_grad_(), torch.randn(n, dim, generator=generator, dtype=torch.float64).requires_grad_()


def test_each_location_is_paired_with_every_global_vector():
    local = torch.arange(12.0).view(3, 1, 2, 2)  # sample i has the locations 4 i to 4 i + 3
    scores = pairs.LocalGlobal()(Positions(), local, torch.arange(3.0).unsqueeze(1))
    assert sorted(decode(scores.joint)) == [(p, p // 4) for p in range(12)]
    assert sorted(decode(scores.marginal_values())) == [(p, i) for p in range(12) for i in range(3) if i != p // 4]
    assert scores.row_ceiling().item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("layout", ["channels first", "tokens"])
def test_loss_and_gradients_equal_loops_over_pixels(layout):
    local, summary = views()
    given = local if layout == "channels first" else local.flatten(2).transpose(1, 2)
    loss = -bounds.InfoNCE()(pairs.LocalGlobal()(critics.InnerProductCritic(), given, summary)).objective
    loss.backward()
    x, y = local.detach().numpy(), summary.detach().numpy()
    where = [(n, h, w) for n in range(3) for h in range(2) for w in range(3)]
    rows = [(i, n, [m for m in range(3) if m != n]) for i, (n, _, _) in enumerate(where)]
    expected = infonce(np.array([x[n, :, h, w] for n, h, w in where]), y, rows)
    assert loss.item() == pytest.approx(expected.loss, abs=1e-12)
    np.testing.assert_allclose(summary.grad.numpy(), expected.y, atol=1e-12)
    for (n, h, w), gradient in zip(where, expected.x, strict=True):
        np.testing.assert_allclose(local.grad[n, :, h, w].numpy(), gradient, atol=1e-12)


@pytest.mark.parametrize("bound", [bounds.DV(), bounds.InfoNCE(), bounds.NWJ(), bounds.JS()], ids=str)
def test_tiled_equals_dense(bound):
    results = []
    for tile_bytes in (100, math.inf):
        local, summary = views()
        scores = pairs.LocalGlobal(tile_bytes=tile_bytes)(critics.InnerProductCritic(), local, summary)
        terms = bound(scores)
        results.append((torch.stack(terms), *torch.autograd.grad(terms.objective, [local, summary])))
        assert isinstance(scores._layout.marginals, TiledMarginals) == (tile_bytes == 100)
    for tiled, dense in zip(*results, strict=True):
        torch.testing.assert_close(tiled, dense, rtol=0, atol=1e-12)


def test_exact_critic_reads_the_information_of_one_location():
    torch.manual_seed(0)
    rho, n, values = 0.8, 100, []
    for _ in range(40):
        summary = torch.randn(n, 2)
        local = rho * summary.view(n, 2, 1, 1) + math.sqrt(1 - rho**2) * torch.randn(n, 2, 4, 4)
        values.append(bounds.InfoNCE()(pairs.LocalGlobal()(Exact(rho), local, summary)).value)
    truth = -math.log(1 - rho**2)  # of two coordinates
    assert torch.stack(values).std() / 40**0.5 < 0.015
    assert torch.stack(values).mean().item() == pytest.approx(truth, abs=0.03)


def test_pointwise_information_of_a_last_single_image_is_its_own():
    """PointwiseMI appends a batch of one sample to the previous batch, and returns its joint pairs alone."""
    local, summary = views(n=4)
    pairing, critic, bound = pairs.LocalGlobal().eval(), critics.InnerProductCritic(), bounds.InfoNCE()
    pointwise = PointwiseMI()
    read = [
        pointwise([v[rows].detach() for v in (local, summary)], lambda *v: pairing(critic, *v), bound, batch, 0)
        for batch, rows in enumerate((slice(0, 3), slice(3, 4)))
    ]
    whole = bound.log_ratio(pairing(critic, local.detach(), summary.detach()))
    torch.testing.assert_close(read[1], whole.view(6, 4)[:, 3])


@pytest.mark.parametrize(
    ("local", "summary", "message"),
    [
        ((4, 8), (4, 8), r"^Got local features of shape \(4, 8\) .*do not flatten the local ones\.$"),
        ((4, 8, 2, 2), (4, 8, 2), r"global features of shape \(4, 8, 2\).*Pool the global"),
        ((4, 8, 0, 2), (4, 8), r"with one location or more"),
        ((4, 8, 2, 2), (3, 8), r"^Got 4 x and 3 y: row i of both is one joint pair"),
        ((1, 8, 2, 2), (1, 8), r"^Got a batch of 1: "),
    ],
)
def test_wrong_shapes_raise(local, summary, message):
    with pytest.raises(ValueError, match=message):
        pairs.LocalGlobal()(critics.InnerProductCritic(), torch.ones(local), torch.ones(summary))


def test_width_that_does_not_fit_the_critic_raises():
    with pytest.raises(ValueError, match=r"^Got x of shape \(16, 8\) and y of shape \(4, 5\): this critic takes"):
        pairs.LocalGlobal()(critics.InnerProductCritic(), torch.ones(4, 8, 2, 2), torch.ones(4, 5))


def test_true_value_is_unknown():
    assert pairs.LocalGlobal().true_value(object(), bounds.DV()) is None
