"""Spawned ranks, which pickle the module and return its weights."""

import datetime
import os

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_mi import AtomicCheckpointIO, bounds
from tests.helpers.small_module import draw, make, trainer, weights

pytestmark = [
    pytest.mark.slow,  # half a minute: each process imports everything anew
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]


def test_spawned_ranks_return_a_trained_module(tmp_path, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    module = make(bounds.MINE(ema_rate=0.25))
    before = weights(module)
    seconds = datetime.timedelta(seconds=60)
    strategy = DDPStrategy(start_method="spawn", process_group_backend="gloo", timeout=seconds)
    x, y = (torch.cat(views) for views in zip(*draw(8, 8, 8, 8).batches, strict=True))
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    given = trainer(devices=2, strategy=strategy, plugins=[AtomicCheckpointIO()])
    given.fit(module, data)
    after = weights(module)
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert all(torch.isfinite(value).all() for value in after.values())
    given.save_checkpoint(tmp_path / "at.ckpt")
    assert torch.load(tmp_path / "at.ckpt", weights_only=True)["state_dict"].keys() == after.keys()
    assert os.listdir(tmp_path) == ["at.ckpt"]
