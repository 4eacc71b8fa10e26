"""The learnable temperature of InnerProductCritic: its gradient, its minimum, its state."""

import io
import math

import pytest
import torch

from lightning_mi import MIEnsemble, MILoss, bounds, losses
from lightning_mi.critics import InnerProductCritic
from tests.helpers.ensembles import fit, make
from tests.helpers.loops import slopes

X = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)


def critic_at(log_temperature: float, minimum: float | None = 0.01) -> InnerProductCritic:
    critic = InnerProductCritic(normalize=True, learnable=True, min_temperature=minimum).double()
    assert critic.log_temperature is not None
    with torch.no_grad():
        critic.log_temperature.fill_(log_temperature)
    return critic


def test_scores_equal_cosines_over_the_temperature() -> None:
    scores = critic_at(math.log(0.2)).pairwise(X, X)
    torch.testing.assert_close(scores, torch.tensor([[5.0, 3.0], [3.0, 5.0]], dtype=torch.float64))
    constant = InnerProductCritic(normalize=True, temperature=0.2)
    torch.testing.assert_close(constant.pairwise(X, X), scores)
    assert not list(constant.parameters())


def test_gradient_equals_numerical_derivatives() -> None:
    x, y = torch.randn(2, 5, 3, dtype=torch.float64)
    critic = critic_at(math.log(0.3))

    def objective(log_temperature):
        loss = MILoss(critic_at(float(log_temperature[0])), bounds.InfoNCE())
        return loss.compute(x, y).terms.objective.item()

    terms = MILoss(critic, bounds.InfoNCE()).compute(x, y).terms
    (gradient,) = torch.autograd.grad(terms.objective, list(critic.parameters()))
    (numerical,) = slopes(objective, torch.tensor([math.log(0.3)]).double().numpy())
    assert gradient.item() == pytest.approx(numerical, rel=1e-7)


@pytest.mark.parametrize("training", [True, False])
def test_temperature_below_the_minimum_scores_as_the_minimum(training: bool) -> None:
    below, at = critic_at(math.log(1e-4)).train(training), critic_at(math.log(0.01)).train(training)
    assert below.temperature == pytest.approx(0.01)
    torch.testing.assert_close(below.pairwise(X, X), at.pairwise(X, X))
    torch.testing.assert_close(below.paired(X, X), at.paired(X, X))
    stored = next(below.parameters()).item()
    assert stored == pytest.approx(math.log(0.01 if training else 1e-4))


def test_temperature_rises_again_from_the_minimum() -> None:
    """Scores of unrelated pairs: the loss falls with the temperature's rise."""
    critic = critic_at(math.log(1e-4))
    optimizer = torch.optim.SGD(critic.parameters(), lr=1e-3)
    x, y = torch.randn(2, 64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        optimizer.zero_grad()
        MILoss(critic, bounds.InfoNCE())(x, y).backward()
        optimizer.step()
    assert critic.temperature > 0.012


def test_two_forward_passes_before_backward_are_allowed() -> None:
    critic = critic_at(math.log(1e-4))
    (critic.pairwise(X, X).sum() + critic.paired(X, X).sum()).backward()
    assert next(critic.parameters()).grad is not None


def test_state_dict_holds_the_temperature() -> None:
    loss, other = losses.clip(temperature=0.3), losses.clip()
    buffer = io.BytesIO()
    torch.save(loss.state_dict(), buffer)
    other.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert isinstance(other.critic, InnerProductCritic)
    assert other.critic.temperature == pytest.approx(0.3)
    assert other.critic.min_temperature == 0.01


def test_batched_ensemble_trains_each_temperature_as_alone() -> None:
    curves, temperatures = [], []
    for batched in (True, False):
        critics = [InnerProductCritic(temperature=t, learnable=True, min_temperature=0.45) for t in (0.5, 2.0)]
        members = {str(t): make("InfoNCE", lr=0.05, critic=critic) for t, critic in enumerate(critics)}
        values, _ = fit(MIEnsemble(members, batched=batched))
        curves.append(values)
        temperatures.append([critic.temperature for critic in critics])
    torch.testing.assert_close(*curves, rtol=1e-4, atol=1e-5)
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-4)
    assert temperatures[0][0] != temperatures[0][1] != 2.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"temperature": 0.0}, ValueError, r"Got temperature=0\.0: it divides the scores"),
        ({"temperature": -1.0, "learnable": True}, ValueError, r"Got temperature=-1\.0: it divides the scores"),
        ({"temperature": "low"}, TypeError, r"Got temperature='low', a str"),
        ({"learnable": True, "min_temperature": 0.0}, ValueError, r"Got min_temperature=0\.0: .* positive"),
        (
            {"temperature": 0.1, "learnable": True, "min_temperature": 0.2},
            ValueError,
            r"Got min_temperature=0\.2 above temperature=0\.1: .* Lower",
        ),
        (
            {"min_temperature": 0.1},
            ValueError,
            r"Got min_temperature=0\.1 for a constant temperature: .*learnable=True",
        ),
    ],
    ids=str,
)
def test_invalid_temperatures_are_errors(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        InnerProductCritic(**arguments)


def test_views_of_another_dtype_are_an_error() -> None:
    with pytest.raises(TypeError, match=r"Got x of type float64 and the critic of type float32"):
        InnerProductCritic(learnable=True).pairwise(X, X)


def test_losses_reject_invalid_temperatures() -> None:
    for named in (losses.ntxent, losses.supcon, losses.clip):
        with pytest.raises(ValueError, match=r"Got temperature=0: it divides"):
            named(0)
    with pytest.raises(ValueError, match=r"Got min_temperature=0\.1 above temperature=0\.07"):
        losses.clip(min_temperature=0.1)
