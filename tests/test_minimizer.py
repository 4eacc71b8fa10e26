"""MIMinimizer in plain torch loops."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_mi import MIMinimizer, bounds, critics, regularizers
from lightning_mi.exceptions import CriticLagWarning, ViewScaleWarning
from tests.helpers.processes import on_processes
from tests.helpers.small_module import DIM, draw, equal, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later


def make(**kwargs):
    torch.manual_seed(0)
    return MIMinimizer(critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4), **kwargs)


def test_critic_trains_on_the_batch_as_in_a_loop_by_hand():
    minimizer, ((x, y),) = make(steps=3, regularizer=regularizers.Squared(0.1)), draw(8)
    by_hand = copy.deepcopy(minimizer.mi_loss)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3, fused=True)
    values = []
    for _ in range(3):
        output = by_hand.compute(x, y)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        values.append(output.terms.value.item())
    output = minimizer.compute(x, y)
    assert equal(weights(minimizer.mi_loss), weights(by_hand))
    assert output.terms_before.value.item() == values[0]
    assert output.terms.value.item() == by_hand.bound(by_hand.score(x, y)).value.item()


def test_gradient_is_the_weighted_estimates_and_reaches_no_critic():
    minimizer, ((x, y),) = make(weight=0.25), draw(8)
    x = x.requires_grad_()
    minimizer(x, y).backward()
    assert all(parameter.grad is None for parameter in minimizer.parameters())
    assert all(parameter.requires_grad for parameter in minimizer.parameters())
    assert x.grad is not None
    again = x.detach().requires_grad_()
    frozen = minimizer.mi_loss
    (0.25 * frozen.bound(frozen.score(again, y)).value).backward()
    torch.testing.assert_close(x.grad, again.grad)


def test_penalty_removes_the_dependence_that_a_mean_error_keeps():
    generator = torch.Generator().manual_seed(0)
    correlations = {}
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        critic = critics.SeparableCritic(1, 1, hidden=(16,))
        minimizer = MIMinimizer(critic, weight=weight, optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2))
        encoder = nn.Linear(2, 1)
        optimizer = torch.optim.Adam(encoder.parameters(), lr=0.02)
        for _ in range(150):
            x = torch.randn(128, 2, generator=generator)
            z = encoder(x) + 0.3 * torch.randn(128, 1, generator=generator)
            loss = (z - x.sum(1, keepdim=True)).square().mean() + minimizer(z, x[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        correlations[weight] = abs(encoder.weight[0, 1] / encoder.weight[0, 0]).item()
    assert correlations[0.0] > 0.8
    assert correlations[3.0] < 0.5 * correlations[0.0]


def test_evaluation_reads_and_does_not_train():
    minimizer, ((x, y),) = make().eval(), draw(8)
    before = weights(minimizer)
    output = minimizer.compute(x, y)
    assert equal(before, weights(minimizer))
    assert output.terms == output.terms_before
    assert minimizer.num_batches == 0


def test_scheduled_weight_follows_the_batches():
    minimizer, ((x, y),) = make(weight=regularizers.LinearWarmup(weight=1.0, steps=2)), draw(8)
    outputs = [minimizer.compute(x, y) for _ in range(3)]
    ratios = [(output.penalty / output.terms.value).item() for output in outputs]
    np.testing.assert_allclose(ratios, [0.0, 0.5, 1.0], rtol=1e-6)


def test_state_dict_resumes_exactly(tmp_path):
    batches = draw(8, 8, 8, 8).batches
    whole, first = make(), make()
    for x, y in batches:
        whole(x, y)
    for x, y in batches[:2]:
        first(x, y)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = make()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for x, y in batches[2:]:
        second(x, y)
    assert equal(weights(whole), weights(second))
    assert second.num_batches == 4


def test_critic_trains_in_full_precision_under_autocast():
    minimizer, ((x, y),) = make(), draw(8)
    plain = copy.deepcopy(minimizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        minimizer(x.bfloat16(), y.bfloat16())
    plain(x.bfloat16().float(), y.bfloat16().float())
    assert equal(weights(minimizer), weights(plain))


def lagging(steps, lr):
    """A minimizer whose critic has trained for 60 batches, with its lag checked every ten."""
    torch.manual_seed(0)
    minimizer = make(steps=steps, optimizer=lambda parameters: torch.optim.Adam(parameters, lr), check_every=10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        x = torch.randn(64, DIM, generator=generator)
        minimizer(x, x + 0.5 * torch.randn(x.shape, generator=generator))
    return minimizer


def test_slow_critic_is_a_warning():
    with pytest.warns(CriticLagWarning, match="LeakageAudit"):
        slow = lagging(1, 1e-3)
    assert slow.lag > 0.05


def test_check_leaves_training_as_it_is():
    slow, plain = (make(check_every=every) for every in (2, None))
    for x, y in draw(8, 8, 8, 8).batches:
        torch.testing.assert_close(slow(x, y), plain(x, y), rtol=0, atol=0)
    assert equal(weights(slow), weights(plain))
    assert math.isnan(plain.lag)
    assert not math.isnan(slow.lag)


def _encoder():
    torch.manual_seed(1)
    return nn.Linear(DIM, DIM)


def _rank_gradient(rank):
    ((x, y),) = draw(8)
    shard = slice(4 * rank, 4 * rank + 4)
    torch.manual_seed(rank)  # other initial weights on each rank
    minimizer = MIMinimizer(critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4), bounds.DV())
    if rank == 0:
        minimizer = make(bound=bounds.DV())
    encoder = DistributedDataParallel(_encoder())
    minimizer(encoder(x[shard]), y[shard]).backward()
    gradients = [parameter.grad.clone() for parameter in encoder.parameters()]
    return gradients, weights(minimizer)


def test_two_ranks_equal_one_process(tmp_path):
    ((x, y),) = draw(8)
    minimizer, encoder = make(bound=bounds.DV()), _encoder()
    minimizer(encoder(x), y).backward()
    for gradients, critic in on_processes(_rank_gradient, 2, tmp_path):
        for gradient, parameter in zip(gradients, encoder.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)
        for name, value in weights(minimizer).items():
            torch.testing.assert_close(critic[name], value, rtol=1e-4, atol=1e-5)


def _rank_error(rank):
    x = torch.ones(4, DIM)
    with pytest.raises(ValueError, match="not finite" if rank else "Rank 1 rejected its shard") as caught:
        make(bound=bounds.DV())(x.where(torch.tensor(rank == 0), torch.nan), x)
    return type(caught.value).__name__


def test_values_that_are_not_finite_raise_on_every_rank(tmp_path):
    assert on_processes(_rank_error, 2, tmp_path) == ["ValueError", "NonFiniteBatchError"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight": -0.1}, ValueError, "at least 0"),
        ({"weight": math.nan}, ValueError, "weight"),
        ({"steps": 0}, ValueError, "steps"),
        ({"check_every": 0}, ValueError, "check_every"),
        ({"bound": bounds.DV}, TypeError, "bound"),
        ({"optimizer": 0.1}, TypeError, "optimizer"),
    ],
    ids=["negative weight", "weight is NaN", "no steps", "no batches", "a class", "a number"],
)
def test_wrong_arguments_raise(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_view_far_from_unit_scale_is_a_warning():
    minimizer = MIMinimizer(critics.SeparableCritic(3, 1, hidden=(8,)))
    z, s = torch.randn(64, 3), torch.randn(64, 1)
    with pytest.warns(ViewScaleWarning, match="View y has a mean"):
        minimizer(z, s + 100)
    minimizer(z, s + 100)  # once
