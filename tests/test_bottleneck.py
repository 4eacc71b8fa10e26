"""Rates of a stochastic encoder, and the module that trains it, against closed forms and the exact curve."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_mi import BottleneckModule, GaussianBottleneck, bounds, critics, pairs, regularizers
from lightning_mi.critics import DiagonalGaussian, GaussianConditional
from lightning_mi.data import laws
from lightning_mi.utilities.distributed import all_reduce_mean_
from tests.helpers.processes import on_processes
from tests.helpers.small_module import Batches, RecordingLogger, fit

N, DX, DZ, CLASSES = 12, 5, 3, 4


def bottleneck(ceb: bool = False) -> GaussianBottleneck:
    torch.manual_seed(0)
    backward = GaussianConditional(nn.Embedding(CLASSES, 2 * DZ)) if ceb else None
    return GaussianBottleneck(GaussianConditional(nn.Linear(DX, 2 * DZ)), backward)


def classifier(ceb: bool = False, **kwargs) -> BottleneckModule:
    kwargs = {"pairs": pairs.EnumeratedLabels(CLASSES, "uniform"), "beta": 0.3} | kwargs
    return BottleneckModule(bottleneck(ceb), critics.LabelCritic(nn.Linear(DZ, CLASSES)), bounds.InfoNCE(), **kwargs)


def batch(n: int = N, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, DX, generator=torch.Generator().manual_seed(seed)), torch.arange(n) % CLASSES


@pytest.mark.parametrize("ceb", [False, True])
def test_rate_is_the_mean_log_ratio_of_samples(ceb: bool) -> None:
    made, (x, labels) = bottleneck(ceb), batch()
    density = made.encoder.given(x)
    zero = torch.zeros(1, DZ)
    reference = DiagonalGaussian(zero, zero) if made.backward_encoder is None else made.backward_encoder.given(labels)
    draws = []
    for _ in range(4000):
        z = density.sample()
        draws.append(density.log_prob(z) - reference.log_prob(z))
    samples = torch.stack(draws).detach().double().numpy()
    rate = made(x, labels).rate.detach().numpy()
    assert (rate >= 0).all()
    np.testing.assert_array_less(np.abs(rate - samples.mean(0)), 4.5 * samples.std(0) / math.sqrt(4000))


@pytest.mark.parametrize("ceb", [False, True])
def test_loss_is_cross_entropy_plus_weighted_rate(ceb: bool) -> None:
    module, (x, labels) = classifier(ceb), batch()
    torch.manual_seed(7)
    output = module.step((x, labels))
    torch.manual_seed(7)
    z, rate = module.bottleneck(x, labels)
    assert isinstance(module.critic, critics.LabelCritic)
    assert module.critic.network is not None
    expected = cross_entropy(module.critic.network(z), labels)
    assert (output.loss + math.log(CLASSES)).item() == pytest.approx((expected + 0.3 * rate.mean()).item(), rel=1e-5)
    assert output.terms.value.item() == pytest.approx(math.log(CLASSES) - expected.item(), abs=1e-5)
    output.loss.backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_continuous_target_is_decoded_by_a_density() -> None:
    module = BottleneckModule(bottleneck(), GaussianConditional(nn.Linear(DZ, 2 * 2)), bounds.BA(entropy=2.0), beta=0.5)
    x, y = batch()[0], torch.randn(N, 2)
    torch.manual_seed(7)
    output = module.step((x, y))
    torch.manual_seed(7)
    z, rate = module.bottleneck(x)
    log_density = module.critic.paired(z, y).mean()
    assert output.terms.value.item() == pytest.approx(2 + log_density.item(), rel=1e-5)
    assert output.loss.item() == pytest.approx((0.5 * rate.mean() - log_density).item(), rel=1e-5)


def test_fit_logs_the_rate_and_keeps_no_graph() -> None:
    module, logger = classifier(ceb=True), RecordingLogger()
    trainer = fit(module, Batches([batch(), batch(seed=2)]), Batches([batch(seed=3)]), logger=logger)
    assert len(logger.curve("train/rate")) == 2
    assert {"val/mi", "val/rate", "val/accuracy", "val/loss"} <= trainer.callback_metrics.keys()
    assert logger.curve("train/rate")[0] > 0
    copy.deepcopy(module)  # fails with a tensor that has a graph
    module.step(batch())
    copy.deepcopy(module)


def test_scheduled_beta_is_read_at_each_step() -> None:
    module = classifier(beta=regularizers.LinearWarmup(weight=1.0, steps=4))
    losses = []
    for step in (0, 2, 4, 9):
        module.mi_loss.set_num_batches(step)
        torch.manual_seed(7)
        losses.append(module.step(batch()).loss.item())
    assert losses[2] == losses[3]
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-4)


def gradient(module: BottleneckModule, views: tuple[torch.Tensor, ...]) -> torch.Tensor:
    module.zero_grad()
    output = module.step(views)
    output.loss.backward()
    parts = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return torch.cat([*parts, output.loss.detach().reshape(1)])


def without_noise(ceb: bool) -> BottleneckModule:
    """Samples are means, so that ranks need not share random numbers."""
    module = classifier(ceb).double()
    module.bottleneck.encoder.network = nn.Sequential(module.bottleneck.encoder.network, _TinyVariance())
    module.bottleneck.encoder.log_variance_range = (-200.0, 10.0)
    return module


class _TinyVariance(nn.Module):
    def forward(self, output: torch.Tensor) -> torch.Tensor:
        mean, log_variance = output.chunk(2, dim=1)
        return torch.cat([mean, log_variance - 150], dim=1)


def run_on_rank(rank: int) -> dict[str, torch.Tensor]:
    x, labels = batch()
    rows = slice(0, 8) if rank == 0 else slice(8, N)
    found = {}
    for ceb in (False, True):
        local = gradient(without_noise(ceb), (x[rows].double(), labels[rows]))
        found[str(ceb)] = all_reduce_mean_(local)
    return found


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later
def test_two_uneven_ranks_give_the_gradient_of_one(tmp_path) -> None:
    x, labels = batch()
    for ceb, found in on_processes(run_on_rank, 2, tmp_path)[0].items():
        expected = gradient(without_noise(ceb == "True"), (x.double(), labels))
        assert expected.norm() > 1e-2
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


class _LinearNoise(nn.Module):
    """Mean W x and a constant log-variance."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim) + 0.1)
        self.log_variance = nn.Parameter(torch.zeros(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x @ self.weight.T
        return torch.cat([mean, self.log_variance.expand_as(mean)], dim=1)


@pytest.mark.parametrize("ceb", [False, True])
def test_trained_encoder_is_on_the_exact_curve(ceb: bool) -> None:
    """By log-determinants of the trained linear encoder; benchmarks/bottleneck_curve.py has five points."""
    torch.manual_seed(0)
    rhos, beta = torch.tensor([0.95, 0.6]), 0.2
    backward = GaussianConditional(_LinearNoise(2)) if ceb else None
    made = GaussianBottleneck(GaussianConditional(encoder := _LinearNoise(2)), backward)
    decoder, weight = GaussianConditional(_LinearNoise(2)), beta / (1 - beta) if ceb else beta
    optimizer = torch.optim.Adam([*made.parameters(), *decoder.parameters()], lr=0.03)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        x = torch.randn(256, 2)
        y = rhos * x + (1 - rhos**2).sqrt() * torch.randn(256, 2)
        z, rate = made(x, y)
        optimizer.zero_grad()
        (weight * rate.mean() - decoder.paired(z, y).mean()).backward()
        optimizer.step()
        scheduler.step()
    w, noise = encoder.weight.detach().double(), encoder.log_variance.detach().double().exp().diag()
    total = torch.logdet(w @ w.T + noise) - torch.logdet(noise)
    relevance = torch.logdet(w @ w.T + noise) - torch.logdet(w @ (1 - rhos.double() ** 2).diag() @ w.T + noise)
    covariance = torch.eye(4, dtype=torch.float64)
    covariance[:2, 2:] = covariance[2:, :2] = rhos.double().diag()
    law = laws.Gaussian(covariance.tolist(), dim_x=2)
    optimum = laws.gaussian_bottleneck(law, beta)
    assert (total / 2).item() == pytest.approx(optimum.rate, abs=0.25)  # the optimum is flat along the curve
    best = laws.gaussian_bottleneck_at(law, (total / 2).item()).relevance
    assert best - 0.02 < (relevance / 2).item() <= best + 1e-9


def test_rate_without_its_condition_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Got a backward encoder b\(z \| y\) but no y"):
        bottleneck(ceb=True)(batch()[0])


def test_encoders_of_different_widths_are_an_error() -> None:
    made = bottleneck()
    made.backward_encoder = GaussianConditional(nn.Embedding(CLASSES, 2))
    with pytest.raises(ValueError, match=r"e\(z \| x\) of shape \(12, 3\) and b\(z \| y\) of shape \(12, 1\)"):
        made(*batch())


def test_network_in_place_of_an_encoder_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"Got encoder of type Linear: .*critics\.GaussianConditional"):
        GaussianBottleneck(nn.Linear(2, 2))


@pytest.mark.parametrize("beta", [-0.1, math.nan, math.inf])
def test_beta_out_of_range_is_an_error(beta: float) -> None:
    with pytest.raises(ValueError, match=f"Got beta={beta}: .*weight of the rate"):
        classifier(beta=beta)


def test_pairing_without_one_joint_pair_a_sample_is_an_error() -> None:
    module = BottleneckModule(bottleneck(), critics.BilinearCritic(DZ, DZ), bounds.DV(), pairs=pairs.SameLabel())
    with pytest.raises(ValueError, match=r"Got 24 joint pairs of SameLabel for 12 samples: .*Use AllPairs"):
        module.step(batch())
