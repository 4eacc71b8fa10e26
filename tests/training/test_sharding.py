"""FSDP2: encoders sharded over two ranks train, save and resume as one process does."""

import os
import runpy

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from lightning_mi import MIEstimationModule, bounds, critics, pairs, regularizers
from lightning_mi.exceptions import NonFiniteStepError, ShardingError
from lightning_mi.training.online_probe import OnlineLinearProbe
from lightning_mi.training.sharding import check_strategy
from lightning_mi.utilities.distributed import is_sharded
from tests.helpers.processes import on_processes
from tests.helpers.small_module import Batches, trainer

# Python 3.12 and later warn of every fork of a process with threads; gloo on one thread forks well.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]

DIM, ROWS, STEPS = 3, 6, 2


def batches(rank=0, world_size=1):
    """Each rank's rows of batches of 2 x ROWS samples."""
    x, noise = torch.randn(2, STEPS, 2 * ROWS, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(2 * ROWS) % 2
    entries = ((a, 0.9 * a + 0.4 * b, labels) for a, b in zip(x, noise, strict=True))
    return Batches(tuple(part.chunk(world_size)[rank] for part in batch) for batch in entries)


def make(seed=0, **kwargs):
    torch.manual_seed(seed)
    return MIEstimationModule(
        critics.CalibratedCritic(critics.JointCritic(DIM, DIM, hidden=(8,)), scale=True, offset_unit=1.0),
        kwargs.pop("bound", None) or bounds.MINE(),
        pairs=pairs.AllPairs(gather="ring"),
        encoder=nn.Sequential(nn.Linear(DIM, 5), nn.Tanh(), nn.Linear(5, DIM)),
        regularizer=regularizers.Squared(weight=0.5),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.5),
        probe=OnlineLinearProbe(DIM, 2),
        **kwargs,
    ).double()


def whole(module):
    """The parameters, and MINE's average."""
    weights = {name: value.full_tensor() if is_sharded(value) else value for name, value in module.named_parameters()}
    return {name: value.detach().clone() for name, value in weights.items()} | {
        "average": module.bound.log_average.clone()
    }


def two_ranks(rank, tensor_parallel_size=1, **kwargs):
    os.environ["LOCAL_RANK"] = str(rank)  # Lightning then does not launch ranks itself
    strategy = ModelParallelStrategy(2 // tensor_parallel_size, tensor_parallel_size, **kwargs)
    return {"strategy": strategy, "devices": 2, "use_distributed_sampler": False}


def _train(rank, folder):
    def fit(epochs, seed, ckpt_path=None, **kwargs):
        made, module = trainer(max_epochs=epochs, **two_ranks(rank, **kwargs)), make(seed=seed)
        made.fit(module, batches(rank, 2), ckpt_path=ckpt_path)
        return made, module

    first, one_epoch = fit(1, seed=rank)  # rank 0's weights count
    first.save_checkpoint(f"{folder}/whole.ckpt")
    _, resumed = fit(2, seed=7, ckpt_path=f"{folder}/whole.ckpt")
    first, straight = fit(1, seed=rank, save_distributed_checkpoint=True)
    first.save_checkpoint(f"{folder}/sharded.ckpt")
    _, again = fit(2, seed=7, ckpt_path=f"{folder}/sharded.ckpt")
    modules = {"one epoch": one_epoch, "resumed": resumed, "resumed from shards": again}
    return {"sharded": [is_sharded(parameter) for parameter in one_epoch.parameters()]} | {
        name: whole(module) for name, module in modules.items()
    }


def largest_difference(weights, others):
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


def load(path):
    """The module of a checkpoint, in one process."""
    module = make(seed=7)
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    return whole(module)


def test_two_ranks_train_save_and_resume_as_one_process(tmp_path, monkeypatch):
    first, second = on_processes(lambda rank: _train(rank, tmp_path), 2, tmp_path)
    assert 0 < sum(first["sharded"]) < len(first["sharded"]), "encoder sharded, critic whole"
    alone = {epochs: make() for epochs in (1, 2)}
    for epochs, module in alone.items():
        trainer(max_epochs=epochs).fit(module, batches())
    for name, epochs in {"one epoch": 1, "resumed": 2, "resumed from shards": 2}.items():
        assert largest_difference(first[name], second[name]) == 0.0, name
        assert largest_difference(first[name], whole(alone[epochs])) <= 1e-12, name
    monkeypatch.setattr("sys.argv", ["", str(tmp_path / "sharded.ckpt"), "--output_file", str(tmp_path / "one.ckpt")])
    runpy.run_module("lightning.pytorch.utilities.consolidate_checkpoint", run_name="__main__")
    for path in (tmp_path / "whole.ckpt", tmp_path / "one.ckpt"):
        assert largest_difference(load(path), first["one epoch"]) == 0.0, path
