"""HeldOutCheckpoint and HeldOutEarlyStopping in resumed runs, on real estimates, and on two ranks."""

import datetime
from pathlib import Path
from typing import ClassVar

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from lightning_mi import bounds, regularizers
from lightning_mi.callbacks import HeldOutCheckpoint, HeldOutEarlyStopping
from lightning_mi.cli.checkpoint_lookup import find_checkpoint
from tests.helpers.scripted import gaussian, play, step_of
from tests.helpers.small_module import Batches, draw, make, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
]


# In a checkpoint.

LONG = [1.0, 2.0, 1.9, 2.1, 2.25, 1.0, 2.3, 1.2]  # 2.3 beats 2.0 by more than 0.28, and 2.25 does not


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # true of the plain one
@pytest.mark.parametrize(("folder", "interrupted"), [("a", 1), ("b", 3), ("a", 4), ("b", 6), ("b", 7)])
def test_resumed_run_compares_with_the_saved_best(interrupted, folder, tmp_path):
    first = HeldOutCheckpoint(z=2, dirpath=tmp_path / "a"), HeldOutEarlyStopping(z=2, patience=5)
    # The plain one comes first: its checkpoint must hold the choice all the same.
    newest = ModelCheckpoint(tmp_path / "a"), ModelCheckpoint(tmp_path / folder)
    play(LONG, newest[0], *first, epochs=interrupted)
    again = HeldOutCheckpoint(z=2, dirpath=tmp_path / folder), HeldOutEarlyStopping(z=2, patience=5)
    fitted = play(LONG, newest[1], *again, ckpt_path=newest[0].best_model_path)
    assert fitted.global_step == len(LONG)
    assert step_of(again[0].best_model_path) == 7
    assert float(again[0].best_model_score) == float(again[1].best_score) == 2.3
    assert again[1].wait_count == 1
    assert find_checkpoint("best", [tmp_path]) == Path(again[0].best_model_path)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_resume_without_a_gain_retains_the_best(tmp_path):
    readings = [1.0, 2.0, 1.9, 1.8, 1.7]
    newest = ModelCheckpoint(tmp_path / "a")
    play(readings, HeldOutCheckpoint(dirpath=tmp_path / "a"), newest, epochs=3)
    resumed = HeldOutCheckpoint(dirpath=tmp_path / "b")
    play(readings, resumed, ModelCheckpoint(tmp_path / "b"), ckpt_path=newest.best_model_path)
    assert list((tmp_path / "b").glob("held_out*")) == []
    best = find_checkpoint("best", [tmp_path])
    assert (best.parent.name, step_of(best)) == ("a", 2)
    assert Path(resumed.best_model_path) == best


def test_best_is_the_held_out_choice_among_checkpoints(tmp_path):
    others = ModelCheckpoint(tmp_path, "max-{step}", "val/mi", mode="max"), ModelCheckpoint(tmp_path)
    held_out = HeldOutCheckpoint(z=2, dirpath=tmp_path)
    play([1.0, 1.1, 1.2, 1.1], others[0], held_out, others[1])
    assert step_of(others[0].best_model_path) == 3
    assert find_checkpoint("best", [tmp_path]) == Path(held_out.best_model_path)
    assert step_of(held_out.best_model_path) == 1


def test_state_dict_before_fit():
    assert HeldOutCheckpoint().state_dict()["standard_error"] == 0
    assert HeldOutEarlyStopping().state_dict()["standard_error"] == 0
    assert HeldOutEarlyStopping().state_key != HeldOutEarlyStopping("val/mi_plug_in").state_key


# Of real estimates.


@pytest.mark.parametrize("monitor", ["val/mi", "val/mi_macro", "val/mi_plug_in"])
def test_module_estimates_choose_and_test_split_reports(monitor, tmp_path):
    callback = HeldOutCheckpoint(monitor, z=0.0, dirpath=tmp_path)
    module = make(bounds.NWJ(), optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05))
    fitted = trainer(callbacks=[callback, Readings()], enable_checkpointing=True, max_epochs=4)
    fitted.fit(module, gaussian())
    values = [row[monitor] for row in Readings.rows]
    best = int(np.argmax(values))
    assert float(callback.best_model_score) == values[best]
    assert callback.state_dict()["standard_error"] == Readings.rows[best][f"{monitor}_standard_error"]
    [read] = fitted.test(datamodule=gaussian(), ckpt_path="best", weights_only=True, verbose=False)
    best_weights = torch.load(callback.best_model_path, weights_only=True)["state_dict"]
    assert all(torch.equal(module.state_dict()[name], weight) for name, weight in best_weights.items())
    assert {"test/mi", "test/mi_standard_error", "test/mi_plug_in_standard_error"} <= read.keys()


class Readings(L.Callback):
    """Values of each validation."""

    rows: ClassVar[list[dict[str, float]]] = []

    def on_fit_start(self, trainer, pl_module):
        Readings.rows = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            Readings.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})


class RecordingLogger(L.Callback):
    """Writes the final state of each rank."""

    def __init__(self, folder, *callbacks):
        self.folder, self.callbacks = folder, callbacks

    def on_fit_end(self, trainer, pl_module):
        states = [callback.state_dict() for callback in self.callbacks]
        torch.save([trainer.global_step, *states], f"{self.folder}/{trainer.world_size}-{trainer.global_rank}.pt")


def test_two_ranks_choose_as_one_does(tmp_path, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # monkeypatch then undoes what the launcher sets
        monkeypatch.delenv(name)
    timeout = datetime.timedelta(seconds=60)
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo", timeout=timeout)
    held_out, stopping = HeldOutCheckpoint(dirpath=tmp_path), HeldOutEarlyStopping(patience=3)
    callbacks = [stopping, RecordingLogger(tmp_path, held_out, stopping), held_out]
    fitted = trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=12, devices=2, strategy=strategy)
    module = make(bounds.NWJ(), optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.02))
    fitted.fit(module, gaussian())
    first, second = (torch.load(tmp_path / f"2-{rank}.pt", weights_only=True) for rank in range(2))
    assert first == second
    steps, chosen_state, stopped_state = first
    assert chosen_state["standard_error"] == stopped_state["standard_error"] > 0
    assert steps < 12 * 4
    checkpoint = torch.load(chosen_state["best_model_path"], weights_only=True)
    # The value and its error cover the samples of both ranks, in batches of 8.
    module = make(bounds.NWJ())
    module.load_state_dict(checkpoint["state_dict"])
    [read] = trainer().validate(module, halves(list(gaussian(batch_size=16).val_dataloader())), verbose=False)
    assert float(chosen_state["best_model_score"]) == pytest.approx(read["val/mi"], rel=1e-6)
    assert chosen_state["standard_error"] == pytest.approx(read["val/mi_standard_error"], rel=1e-6)


def halves(batches):
    """Each batch as the shards of two ranks."""
    return Batches(tuple(part[half] for part in batch) for batch in batches for half in (slice(8), slice(8, 16)))


def test_logged_standard_errors_are_the_delta_methods():
    module, batches = make(bounds.DV(), regularizer=regularizers.Squared()), draw(8, 5, 6, 9)
    [read] = trainer().validate(module, batches, verbose=False)
    sheets = [module.critic.pairwise(*batch).detach().double().numpy() for batch in batches]
    sizes = np.array([len(t) for t in sheets])
    joint = np.array([t.diagonal().mean() for t in sheets])
    z = np.array([np.exp(t[~np.eye(len(t), dtype=bool)]).mean() for t in sheets])
    pairs = sizes * (sizes - 1)
    of_joint = sizes / sizes.sum() * (joint - np.average(joint, weights=sizes))
    of_log = pairs / pairs.sum() * (z / np.average(z, weights=pairs) - 1)
    expected = {
        "mi": np.sqrt(4 / 3 * ((of_joint - of_log) ** 2).sum()),
        "mi_plug_in": np.sqrt(4 / 3 * (of_joint**2).sum()),
        "mi_macro": np.std(joint - np.log(z), ddof=1) / 2,
    }
    for name, error in expected.items():
        assert read[f"val/{name}_standard_error"] == pytest.approx(error, rel=1e-4)
