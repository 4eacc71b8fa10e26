"""Rules of the non-finite policy: the decision, its single host-device sync, and repeated evaluations."""

import math
from types import SimpleNamespace

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_mi import bounds, critics, regularizers
from lightning_mi.training.finite_checks import all_finite
from lightning_mi.training.non_finite import Findings, NonFiniteGuard, choose_action
from tests.helpers.recording import recorded
from tests.helpers.small_module import DIM, RecordingLogger, draw, fit, make

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_one_bad_value_is_found_in_any_kind_of_tensor(bad):
    def kinds(value):
        sparse = torch.sparse_coo_tensor([[0, 1]], [1.0, value], (3,), check_invariants=True)
        return [
            [torch.ones(3), torch.tensor([1.0, value])],
            [torch.ones(3, dtype=torch.float64), torch.tensor(value)],
            [torch.tensor([1.0, value], dtype=torch.bfloat16)],
            [torch.tensor([1.0, value], dtype=torch.complex64)],
            [sparse],
            [torch.tensor([value], dtype=torch.float64), torch.tensor([3e38, 3e38]), torch.ones(0)],
        ]

    assert [all_finite(tensors) for tensors in kinds(1.0)] == [True] * 6
    assert [all_finite(tensors) for tensors in kinds(bad)] == [False] * 6
    assert all_finite([])


def test_a_rank_turns_bad_batches_or_losses_into_nan():
    guard, output = NonFiniteGuard("raise"), make().step(draw(3).batches[0])  # of the rank that has the bad batch
    guard.start(SimpleNamespace(callbacks=[], precision_plugin=None, world_size=2))
    module = SimpleNamespace(training=True, _trainer=object())
    for view, loss, spoils in ((1.0, 1.0, False), (math.inf, 1.0, True), (1.0, math.inf, True)):
        guard.check_views(module, [torch.tensor([view]), torch.tensor([7]), "text"])
        given = torch.tensor(loss, requires_grad=True)
        numbers = torch.stack(output.terms).detach()
        guard.watch_loss(output, output.scores.detach(), numbers, given, logged=False).backward()
        assert given.grad.isnan().item() == spoils


ACTIONS = [
    # forward and gradients finite, policy, scaler
    (True, True, "raise", False, "proceed"),
    (True, True, "off", True, "proceed"),
    (True, False, "raise", False, "raise"),
    (False, True, "skip", False, "skip"),
    (False, False, "off", False, "proceed"),
    (True, False, "off", True, "undo"),
    (True, False, "skip", True, "undo"),
    (False, False, "skip", True, "skip"),
    (False, False, "off", True, "proceed"),
]


@pytest.mark.parametrize(("forward", "gradients", "policy", "scaled", "action"), ACTIONS)
def test_the_action_follows_findings_and_policy(forward, gradients, policy, scaled, action):
    assert choose_action(Findings(forward, gradients), policy, scaled) == action


class Reads(TorchDispatchMode):
    """Counts reads of a tensor's value: each is a host-device sync on an accelerator."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


class CountReads(L.Callback):
    """Reads within `decide` of each step."""

    def __init__(self):
        self.counts = []

    def on_fit_start(self, trainer, pl_module):
        decide = pl_module._guard.decide

        def counted(*args):
            with Reads() as reads:
                decide(*args)
            self.counts.append(reads.count)

        pl_module._guard.decide = counted


def test_a_finite_step_reads_one_number():
    counting = CountReads()
    fit(make(on_non_finite="skip"), draw(*[8] * 4), callbacks=counting, log_every_n_steps=50)
    assert counting.counts[1:] == [1, 1, 1]  # the first step also checks for flat scores


def test_lbfgs_counts_each_batch_once(monkeypatch):
    def lbfgs(parameters):
        return torch.optim.LBFGS(parameters, lr=0.01, max_iter=3)

    calls: list[tuple] = []
    monkeypatch.setattr(critics.CalibratedCritic, "calibrate", recorded(calls, critics.CalibratedCritic.calibrate))
    logger, critic = RecordingLogger(), critics.CalibratedCritic(critics.BilinearCritic(DIM, DIM))
    options = {"encoder": nn.BatchNorm1d(DIM), "optimizer": lbfgs, "regularizer": regularizers.Squared(0.1)}
    module = make(bounds.MINE(), critic=critic, **options)
    fit(module, draw(*[8] * 4), logger=logger)
    assert len(calls) == 1
    assert module.bound.num_updates == 4
    assert module.encoders[0].num_batches_tracked == 2 * 4  # x and y
    assert logger.curve("train/mi_macro") == [pytest.approx(np.mean(logger.curve("train/mi")), rel=1e-5)]
