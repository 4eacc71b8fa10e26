"""Members, optimizers and trainers that an ensemble rejects, and the comparison of architectures."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_mi import MIEnsemble, MIEstimationModule, bounds, critics
from lightning_mi.ensemble.module_stack import same_architecture
from lightning_mi.training import online_probe as probes
from tests.helpers.ensembles import fit, make


def test_loss_of_the_wrong_sign_raises() -> None:
    class Reversed(MIEstimationModule):
        def loss(self, terms: Any, penalty: Any) -> Tensor:
            return -super().loss(terms, penalty)

    member = Reversed(critics.BilinearCritic(4, 4), bounds.DV())
    with pytest.raises(ValueError, match="increases with the bound's objective"):
        fit(MIEnsemble({"a": member, "b": make()}))


@pytest.mark.parametrize(
    ("members", "error", "words"),
    [
        (dict, ValueError, "no members"),
        (lambda: {"a": nn.Linear(1, 1)}, TypeError, "Linear as member 'a'"),
        (lambda: dict.fromkeys("ab", make()), ValueError, "share a part"),
        (lambda: {"a": make(probe=probes.OnlineLinearProbe(4, 2))}, ValueError, "with a probe"),
        (lambda: {"a": make(scheduler=torch.optim.lr_scheduler.ConstantLR)}, ValueError, "with a scheduler"),
    ],
)
def test_invalid_members_raise(members: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        MIEnsemble(members())


def test_unsuitable_optimizers_raise() -> None:
    for optimizers in ((torch.optim.Adam, torch.optim.SGD), (torch.optim.Adafactor, torch.optim.Adafactor)):
        members = {str(i): make(optimizer=optimizer) for i, optimizer in enumerate(optimizers)}
        with pytest.raises(ValueError, match=r"Got optimizers .*one class"):
            fit(MIEnsemble(members))


def test_clipping_and_accumulation_raise() -> None:
    for option in ({"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}):
        with pytest.raises(MisconfigurationException, match="manual optimization"):
            fit(MIEnsemble({"a": make()}), **option)


def test_world_size_above_one_raises() -> None:
    ensemble = MIEnsemble({"a": make()})
    ensemble.trainer = type("Trainer", (), {"world_size": 2})()
    with pytest.raises(RuntimeError, match="world size 2"):
        ensemble.setup("fit")


def test_same_architecture_compares_all_settings() -> None:
    first, second = make("SMILE"), make("SMILE", 1)
    assert same_architecture(first.bound, second.bound)
    assert same_architecture(first.critic, second.critic)
    second.bound.tau = 3.0
    assert not same_architecture(first.bound, second.bound)
    first.bound.tau = second.bound.tau = torch.ones(2)
    assert not same_architecture(first.bound, second.bound)
    assert not same_architecture(bounds.DV(), bounds.NWJ())
    second.bound.more = 1
    assert not same_architecture(first.bound, second.bound)
