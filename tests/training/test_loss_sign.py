"""A loss that increases with the bound's objective is an error at the first training step."""

import datetime

import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from lightning_mi import MIEstimationModule, bounds, critics, pairs, regularizers
from tests.helpers.ranks import become_rank, free_port
from tests.helpers.recording import recorded
from tests.helpers.small_module import DIM, draw, equal, fit, make, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


class Negated(MIEstimationModule):
    def loss(self, terms, penalty):
        return -super().loss(terms, penalty)


class Value(MIEstimationModule):
    def loss(self, terms, penalty):
        return terms.value


class Task(MIEstimationModule):
    def loss(self, terms, penalty):
        return 3.0 + 0.1 * super().loss(terms, penalty)


class Flat(MIEstimationModule):
    def loss(self, terms, penalty):
        return sum(p.square().sum() for p in self.critic.parameters())


class NegatedAfterwards(MIEstimationModule):
    def training_step(self, batch, batch_idx):
        return -super().training_step(batch, batch_idx)["loss"]


class Manual(Negated):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        outputs = super().training_step(batch, batch_idx)
        self.manual_backward(outputs["loss"])
        optimizer.step()
        return outputs


MESSAGE = "increases with the bound's objective.*MIPenalty"


@pytest.mark.parametrize(("cls", "make_bound"), [(Negated, bounds.DV), (Negated, bounds.MINE), (Value, bounds.JS)])
def test_a_loss_that_minimizes_a_bound_is_an_error(cls, make_bound):
    module = make(make_bound(), cls, regularizer=regularizers.Squared(0.1))
    before = weights(module)
    with pytest.raises(ValueError, match=MESSAGE):
        fit(module)
    assert all(torch.equal(before[name], parameter) for name, parameter in module.named_parameters())


@pytest.mark.parametrize(
    ("cls", "make_bound"), [(MIEstimationModule, bounds.DV), (Task, bounds.MINE), (Flat, bounds.NWJ)]
)
def test_other_losses_pass(cls, make_bound):
    fit(make(make_bound(), cls, regularizer=regularizers.Squared(0.1)))


def test_a_step_that_returns_the_negative_is_an_error():
    module = make(cls=NegatedAfterwards)
    before = weights(module)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"minus sign.*MIPenalty"):
            fit(module)
    assert equal(before, weights(module))


def test_manual_optimization_is_free_to_minimize():
    fit(make(cls=Manual))


def test_accumulated_batches_do_not_hide_the_sign():
    with pytest.raises(ValueError, match=MESSAGE):
        fit(make(cls=Negated), accumulate_grad_batches=2)


def test_mixed_precision_does_not_hide_the_sign():
    fit(make(), precision="bf16-mixed")
    with pytest.raises(ValueError, match=MESSAGE):
        fit(make(cls=Negated), precision="bf16-mixed")


def test_a_frozen_critic_may_be_minimized_over_an_encoder():
    critic = critics.SeparableCritic(DIM, DIM).requires_grad_(False)
    fit(make(cls=Negated, critic=critic, encoder=torch.nn.Linear(DIM, DIM)))


def test_a_critic_without_parameters_trains_by_its_encoder():
    with pytest.raises(ValueError, match=MESSAGE):
        fit(make(cls=Negated, critic=critics.InnerProductCritic(), encoder=torch.nn.Linear(DIM, DIM)))


class Counting(torch.nn.Linear):
    """Counts backward passes through its outputs."""

    def __init__(self, calls):
        super().__init__(DIM, DIM)
        self.calls = calls

    def forward(self, x):
        y = super().forward(x)
        y.register_hook(self.calls.append)
        return y


@pytest.mark.parametrize("tile_bytes", [None, 64])
def test_the_check_runs_no_backward_of_the_network(tile_bytes):
    calls: list[torch.Tensor] = []
    module = make(pairs=pairs.AllPairs(tile_bytes=tile_bytes), encoder=Counting(calls))
    fit(module, draw(8, 8))
    assert len(calls) == 2 * 2  # two steps, x and y


def test_the_check_changes_no_training(monkeypatch):
    checked = make(regularizer=regularizers.Squared(0.1))
    fit(checked)
    plain = make(regularizer=regularizers.Squared(0.1))
    monkeypatch.setattr("lightning_mi.training.first_step.FirstStep.start", lambda self: None)
    fit(plain)
    assert equal(weights(checked), weights(plain))


def test_only_the_first_step_is_differentiated(monkeypatch):
    calls: list[tuple] = []
    monkeypatch.setattr("lightning_mi.training.first_step.torch.autograd.grad", recorded(calls, torch.autograd.grad))
    fit(make(), draw(8, 8, 8), max_epochs=2)
    assert len([given for given in calls if given[0].ndim == 0]) == 1


def test_all_ranks_find_the_same_sign(tmp_path):
    mp.start_processes(_fit, (free_port(), tmp_path), nprocs=2, start_method="fork")
    found = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    assert found[0] == found[1]
    assert "increases with the bound's objective" in found[0]


def _fit(rank, port, folder):
    torch.set_num_threads(1)
    become_rank(rank, port)
    strategy = DDPStrategy(process_group_backend="gloo", timeout=datetime.timedelta(seconds=60))
    error = ""
    try:
        fit(make(cls=Negated), draw(8, 8, seed=rank), strategy=strategy, devices=2, plugins=[LightningEnvironment()])
    except ValueError as found:
        error = str(found)
    (folder / str(rank)).write_text(error)
