"""GaussianConditional against SciPy and torch.distributions: densities, precision, range and errors."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.distributions import Normal, kl_divergence

from lightning_mi import MILoss, bounds, pairs
from lightning_mi.critics import DiagonalGaussian, GaussianConditional
from lightning_mi.encoders import MLP

N, M, DX, DY = 5, 4, 3, 2


def densities(n: int, dim: int) -> DiagonalGaussian:
    return DiagonalGaussian(torch.randn(n, dim).double(), torch.randn(n, dim).double())


def test_divergence_equals_that_of_torch() -> None:
    p, q = densities(N, DY), densities(N, DY)
    expected = kl_divergence(*(Normal(d.mean, (d.log_variance / 2).exp()) for d in (p, q))).sum(1)
    torch.testing.assert_close(p.kl(q), expected, rtol=0, atol=1e-12)


def test_divergence_of_nearly_equal_densities_is_precise() -> None:
    p = DiagonalGaussian(torch.zeros(1, 1), torch.full((1, 1), 1e-4))
    zero = torch.zeros(1, 1)
    assert p.kl(DiagonalGaussian(zero, zero)).item() == pytest.approx(1e-8 / 4, rel=1e-2)


def test_sample_has_the_mean_and_the_variance() -> None:
    density = DiagonalGaussian(torch.full((20_000, 1), 2.0), torch.full((20_000, 1), math.log(9.0)).requires_grad_())
    sample = density.sample()
    assert sample.mean().item() == pytest.approx(2, abs=4 * 3 / 20_000**0.5)
    assert sample.var().item() == pytest.approx(9, abs=4 * 9 * (2 / 20_000) ** 0.5)
    assert sample.requires_grad


def test_known_density_is_that_of_the_linear_channel() -> None:
    weight, variance, bias = torch.randn(DY, DX).double(), [0.3, 1e-9], torch.tensor([1.0, -2.0]).double()
    critic = GaussianConditional.linear(weight, variance, bias)
    x, y = torch.randn(N, DX).double(), torch.randn(M, DY).double()
    mean = x.numpy() @ weight.numpy().T + bias.numpy()
    expected = norm.logpdf(y.numpy(), mean[:, None], np.sqrt(variance)).sum(-1)
    np.testing.assert_allclose(critic.pairwise(x, y).numpy(), expected, rtol=1e-12)
    assert not any(parameter.requires_grad for parameter in critic.parameters())


@pytest.mark.parametrize("tile_bytes", [200, math.inf])
def test_small_variances_are_precise_in_float32(tile_bytes: float) -> None:
    """Expanded squares would be wrong by more than a nat: their terms are 1e8."""
    torch.manual_seed(0)
    critic = GaussianConditional.linear(torch.eye(DY), 1e-6)
    x = 10 + torch.randn(N, DY)
    y = x + 1e-3 * torch.randn(N, DY)
    scores = pairs.AllPairs(tile_bytes=tile_bytes)(critic, x, y)
    expected = norm.logpdf(y.double().numpy(), x.double().numpy(), 1e-3).sum(1)
    np.testing.assert_allclose(scores.joint.numpy(), expected, atol=0.02)


def test_log_variance_is_the_output_inside_the_range() -> None:
    raw = torch.tensor([[0.0, -10.0], [0.0, 10.0], [0.0, 3.5]])
    assert torch.equal(GaussianConditional(nn.Identity()).given(raw).log_variance, raw[:, 1:])


@pytest.mark.parametrize("start", [-300.0, 300.0])
def test_log_variance_returns_from_far_outside(start: float) -> None:
    """Tanh would have no gradient there."""
    raw, zero = torch.tensor([[start]], requires_grad=True), torch.zeros(1, 1)
    critic = GaussianConditional(nn.Identity())
    assert 10 < abs(critic.given(torch.cat([zero, raw], dim=1)).log_variance.item()) < 11
    optimizer = torch.optim.Adam([raw], lr=5.0)
    steps = 0
    while abs(raw.item()) > 10 and steps < 100:
        optimizer.zero_grad()
        (-critic.paired(torch.cat([zero, raw], dim=1), torch.ones(1, 1))).sum().backward()
        optimizer.step()
        steps += 1
    assert abs(raw.item()) <= 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bound", [bounds.BA(1.0), bounds.CLUB(), bounds.CLUBSample(), bounds.L1Out()])
def test_bounds_are_finite_at_extreme_outputs(bound: bounds.AbstractBound, dtype: torch.dtype) -> None:
    critic = GaussianConditional(nn.Identity()).to(dtype)
    for size in (1e-4, 1.0, 1e2, 6e4):
        x, y = size * torch.randn(8, 2 * DY), size * torch.randn(8, DY)
        x, y = (view.clamp(-6e4, 6e4).to(dtype).requires_grad_() for view in (x, y))
        output = MILoss(critic, bound).compute(x, y)
        assert {term.dtype for term in output.terms} == {torch.float32}
        assert all(term.isfinite() for term in output.terms)
        (output.loss + output.terms.value).backward()
        if dtype != torch.float16:  # whose largest number is 65504
            assert x.grad.isfinite().all()
            assert y.grad.isfinite().all()


def test_network_in_half_precision_gives_full_precision_densities() -> None:
    critic = GaussianConditional(MLP(DX, [8], out_dim=2 * DY))
    x, y = torch.randn(N, DX), torch.randn(M, DY)
    with torch.autocast("cpu", torch.bfloat16):
        density, scores = critic.given(x), critic.pairwise(x, y)
    assert {density.mean.dtype, scores.dtype} == {torch.float32}
    expected = norm.logpdf(y, density.mean.detach()[:, None], density.log_variance.detach().exp().sqrt()[:, None])
    np.testing.assert_allclose(scores.detach().numpy(), expected.sum(-1), rtol=1e-5)


def test_labels_are_a_condition() -> None:
    critic = GaussianConditional(nn.Embedding(3, 2 * DY))
    labels, y = torch.tensor([2, 0, 2]), torch.randn(M, DY)
    scores = critic.pairwise(labels, y)
    assert torch.equal(scores[0], scores[2])
    assert scores.shape == (3, M)


def test_row_of_all_pairs_is_one_y_against_every_x() -> None:
    critic = GaussianConditional(nn.Linear(DX, 2 * DY))
    x, y = torch.randn(N, DX), torch.randn(N, DY)
    for tile_bytes in (200, math.inf):
        scores = pairs.AllPairs(tile_bytes=tile_bytes)(critic, x, y)
        expected = critic.pairwise(x, y).logsumexp(0) - math.log(N)
        torch.testing.assert_close(scores.row_log_mean_exp(), expected)


def test_invalid_arguments_are_an_error() -> None:
    with pytest.raises(TypeError, match=r"Got network=8, an int: .*encoders\.MLP"):
        GaussianConditional(8)
    with pytest.raises(ValueError, match=r"Got log_variance_range=\(1, -1\): the first number is the lower one"):
        GaussianConditional(nn.Identity(), log_variance_range=(1, -1))
    with pytest.raises(ValueError, match=r"Got variance=.*variances are positive"):
        GaussianConditional.linear(torch.eye(2), [1.0, 0.0])


def test_views_of_another_width_are_an_error() -> None:
    critic = GaussianConditional(nn.Linear(DX, 2 * DY))
    for score in (critic.paired, critic.pairwise):
        with pytest.raises(ValueError, match=r"Got y of shape \(5, 3\) and a network with 4 outputs"):
            score(torch.zeros(N, DX), torch.zeros(N, 3))
    with pytest.raises(ValueError, match=r"Got an output of shape \(5, 3\).*2 D columns"):
        GaussianConditional(nn.Linear(DX, 3)).given(torch.zeros(N, DX))
