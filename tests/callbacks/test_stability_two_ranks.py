"""Under DDP all ranks have the same detections and weights, computed from the steps of all."""

import warnings

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_mi import regularizers
from lightning_mi.callbacks import AdaptiveRegularizer, StabilityMonitor
from lightning_mi.scores.batch_shard import gather
from tests.helpers.processes import TIMEOUT, on_processes
from tests.helpers.scripted_terms import Scripted, steps
from tests.helpers.small_module import trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

NAMES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


def test_two_ranks_gather_the_same(tmp_path):
    for gathered in on_processes(lambda rank: gather(torch.tensor([1.0, 2.0]) * (rank + 1)), 2, tmp_path):
        assert gathered.tolist() == [[1.0, 2.0], [2.0, 4.0]]


class TermsByRank(Scripted):
    """The terms differ between ranks; rank 1 has an infinite one at step 31."""

    def __init__(self):
        super().__init__(None, regularizer=regularizers.Squared())

    def training_step(self, batch, batch_idx):
        rank = self.global_rank
        infinite = rank == 1 and self.global_step == 31
        self.course = lambda step: (float("inf") if infinite else 1.0 + rank, 3.0 * rank + step, 1.0 + rank)
        return super().training_step(batch, batch_idx)


class SaveState(L.Callback):
    def __init__(self, folder, *callbacks):
        self.folder, self.callbacks = folder, callbacks

    def on_fit_end(self, trainer, pl_module):
        monitor, adaptive = self.callbacks
        state = (monitor.state_dict(), adaptive.factor, pl_module.weight.detach(), trainer.global_step)
        torch.save(state, f"{self.folder}/{trainer.global_rank}.pt")


def test_two_ranks_agree_on_blocks_detections_and_rollback(tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "")  # monkeypatch then undoes what the launcher sets
        monkeypatch.delenv(name)
    monitor = StabilityMonitor(window=60, every_n_steps=3, action="roll_back", alpha=1e-9)
    adaptive = AdaptiveRegularizer(band=(-9.0, 9.0), every_n_steps=3, raise_by=2.0, relax_by=0.5)
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo", timeout=TIMEOUT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the detections are in the state
        trainer(
            callbacks=[monitor, adaptive, SaveState(tmp_path, monitor, adaptive)], devices=2, strategy=strategy
        ).fit(TermsByRank(), steps(40))
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    # Only the current block differs between ranks.
    rows = [state.pop("rows") for state, *_ in states]
    assert rows[0] != rows[1]
    assert states[0] == states[1]
    state, factor, _, step = states[0]
    assert step == 40
    assert state["exploded_at"] == 33
    assert state["rolled_back"] == [[33, 15]]
    last = dict(zip(("step", "value", "joint_term", "log_normalizer"), state["blocks"][-1], strict=False))
    assert last == {"step": 39, "value": 1.5, "joint_term": 40.0, "log_normalizer": 38.5}  # 1.5 + steps 36 to 38
    # Above 9 from the fourth block on, doubled each time, times ten at the rollback: the maximum weight.
    assert factor == 10.0
