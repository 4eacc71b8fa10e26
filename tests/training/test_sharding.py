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
from lightning_mi.training.sharding import check_strategy, shard_encoders
from lightning_mi.utilities.sharded_tensors import is_sharded
from tests.helpers.processes import on_processes
from tests.helpers.small_module import Batches, trainer

# Python 3.12 and later warn of every fork of a process with threads; gloo on one thread forks well.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    # of torch, in the loading of a whole checkpoint
    pytest.mark.filterwarnings("ignore:`_get_pg_default_device` will be deprecated"),
    pytest.mark.filterwarnings("ignore:Multiple backends are registered with this ProcessGroup"),
]

DIM, ROWS, STEPS = 3, 6, 2


def batches(rank=0, world_size=1):
    """Each rank's rows of batches of 2 x ROWS samples."""
    x, noise = torch.randn(2, STEPS, 2 * ROWS, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(2 * ROWS) % 2
    entries = ((a, 0.9 * a + 0.4 * b, labels) for a, b in zip(x, noise, strict=True))
    return Batches(tuple(part.chunk(world_size)[rank] for part in batch) for batch in entries)


class Sharded(MIEstimationModule):
    def configure_model(self):
        shard_encoders(self)


def make(seed=0, **kwargs):
    torch.manual_seed(seed)
    return kwargs.pop("cls", Sharded)(
        critics.CalibratedCritic(critics.JointCritic(DIM, DIM, hidden=(8,)), scale=True, offset_unit=1.0),
        kwargs.pop("bound", None) or bounds.MINE(),
        pairs=pairs.AllPairs(gather="ring"),
        encoder=nn.Sequential(nn.Linear(DIM, 5), nn.Tanh(), nn.Linear(5, DIM)),
        regularizer=regularizers.Squared(weight=0.5),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.5),
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

    first, one_epoch = fit(1, seed=rank, save_distributed_checkpoint=False)  # rank 0's weights count
    first.save_checkpoint(f"{folder}/whole.ckpt")
    _, resumed = fit(2, seed=7, ckpt_path=f"{folder}/whole.ckpt")
    first, _ = fit(1, seed=rank)
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
    runpy.run_module("lightning.fabric.utilities.consolidate_checkpoint", run_name="__main__")
    for path in (tmp_path / "whole.ckpt", tmp_path / "one.ckpt"):
        assert largest_difference(load(path), first["one epoch"]) == 0.0, path


class NotFinite(Sharded):
    """The gradient of one parameter of the encoder is infinite at one entry, on both ranks alike."""

    def on_before_optimizer_step(self, optimizer):
        bias = self.encoders.get_parameter("0.0.bias")
        if is_sharded(bias) and self.device_mesh.get_rank() == 1:
            bias.grad.to_local()[-1] = torch.inf
        super().on_before_optimizer_step(optimizer)


def _not_finite(rank):
    skipped = make(cls=NotFinite, on_non_finite="skip")
    before = whole(skipped)
    trainer(max_epochs=1, **two_ranks(rank)).fit(skipped, batches(rank, 2))
    after = whole(skipped)
    unchanged = [bool(torch.equal(before[name], after[name])) for name in before if "encoders" in name]
    try:
        trainer(max_epochs=1, **two_ranks(rank)).fit(make(cls=NotFinite), batches(rank, 2))
    except NonFiniteStepError as error:
        return unchanged, str(error)


def test_gradient_that_one_rank_sees_stops_all_ranks(tmp_path):
    first, second = on_processes(_not_finite, 2, tmp_path)
    assert all((*first[0], *second[0]))
    assert "hold 0 values that are not finite (none)" in first[1]
    assert "hold 1 values that are not finite (encoders.0.0.bias)" in second[1]


def _tensor_parallel(rank):
    trainer(max_epochs=1, **two_ranks(rank, tensor_parallel_size=2)).fit(make(), batches(rank, 2))


def test_tensor_parallel_ranks_are_an_error(tmp_path):
    for message in on_processes(_tensor_parallel, 2, tmp_path):
        assert message.startswith("ShardingError: Got tensor_parallel_size=2: ranks that share a batch")
        assert "ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)" in message


@pytest.mark.parametrize("name", ["DeepSpeedStrategy", "FSDPStrategy"])
def test_other_sharded_strategies_are_an_error(name):
    class Trainer:
        world_size = 4
        strategy = type("Mine", (type(name, (), {}),), {})()

    with pytest.raises(ShardingError, match=rf"Got {name}: .*data_parallel_size=4"):
        check_strategy(Trainer())
