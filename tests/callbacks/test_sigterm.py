"""SIGINT, SIGTERM and SIGHUP save a checkpoint and exit with the status of the signal."""

import multiprocessing
import os
import signal
import subprocess
import time

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_mi import pairs
from lightning_mi._compat.lightning_loops import batches_done
from lightning_mi.callbacks import SaveAtTermination
from lightning_mi.data import GaussianDataModule, ImageDataModule
from tests.helpers.small_module import DIM, Batches, draw, equal, make, trainer, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
]


class Resumable(Batches):
    """Batches that resume after those already trained on."""

    trainer: L.Trainer

    def __iter__(self):
        done = batches_done(self.trainer) % len(self)
        return iter(self.batches[done:])

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class SendSignal(L.Callback):
    """Sends a signal to this process in a hook, by default in the middle of a step."""

    def __init__(self, step, number=signal.SIGTERM, hook="on_after_backward"):
        self.step, self.number = step, number
        setattr(self, hook, self._send)

    def _send(self, trainer, *_):
        if trainer.global_step == self.step and not trainer.sanity_checking:
            os.kill(os.getpid(), self.number)


def fit(module, *callbacks, **kwargs):
    given = trainer(callbacks=list(callbacks), enable_checkpointing=bool(callbacks), max_epochs=2)
    batches = Resumable(draw(8, 8, 8, 8).batches)
    batches.trainer = given
    given.fit(module, batches, **kwargs)


@pytest.mark.parametrize(
    ("number", "status", "has_dirpath"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False), (signal.SIGHUP, 129, True)],
)
def test_signal_saves_after_the_step_and_resume_is_exact(number, status, has_dirpath, tmp_path):
    whole, interrupted, resumed = make(), make(), make()
    fit(whole)
    before = signal.getsignal(number)
    others = [] if has_dirpath else [ModelCheckpoint(tmp_path, save_top_k=0)]
    with pytest.raises(SystemExit) as ended:
        fit(interrupted, *others, SaveAtTermination(tmp_path if has_dirpath else None), SendSignal(2, number))
    assert ended.value.code == status
    assert signal.getsignal(number) is before
    path = tmp_path / "last-terminated.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 3
    fit(resumed, ckpt_path=path, weights_only=True)
    assert equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("data", ["images", "stream"])
def test_signalled_dataloader_workers_lose_no_batch(data, tmp_path):
    """As from a scheduler, which signals every process of a job."""
    others = multiprocessing.active_children()  # of earlier tests

    class SignalAll(L.Callback):
        def on_after_backward(self, trainer, pl_module):
            if trainer.global_step == 2:
                children = multiprocessing.active_children()
                self.workers = [child for child in children if child not in others]
                pids = [str(process.pid) for process in (*self.workers, multiprocessing.current_process())]
                subprocess.run(["kill", "-TERM", *pids], check=True)  # not by this process
                time.sleep(0.2)
                self.left = [worker.is_alive() for worker in self.workers]

    send = SignalAll()
    module_data: L.LightningDataModule
    if data == "images":
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, DIM))
        module, module_data = (
            make(encoder=encoder, pairs=pairs.SameLabel()),
            ImageDataModule("digits", batch_size=8, num_workers=2),
        )
    else:
        module, module_data = make(), GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=9, batch_size=8, num_workers=2)
    with pytest.raises(SystemExit) as ended:
        trainer(callbacks=[SaveAtTermination(tmp_path), send], enable_checkpointing=True, limit_val_batches=0).fit(
            module, module_data
        )
    assert ended.value.code == 143
    assert send.left == [True, True]
    assert torch.load(tmp_path / "last-terminated.ckpt", weights_only=True)["global_step"] == 3
    for worker in send.workers:
        worker.join(10)
        assert not worker.is_alive()


def test_ended_worker_does_not_interrupt_the_save(tmp_path):
    callback = SaveAtTermination(tmp_path)
    before = signal.getsignal(signal.SIGCHLD)
    callback.on_train_start(None, None)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGCHLD) is not before
    signal.raise_signal(signal.SIGCHLD)  # as when a worker ends
    with pytest.raises(SystemExit):
        callback.teardown(None, None, "fit")
    assert signal.getsignal(signal.SIGCHLD) is before


class Slow(L.Callback):
    """Counts validation batches."""

    num_batches = 0

    def on_validation_batch_start(self, *_):
        self.num_batches += 1


def test_interrupted_validation_is_repeated_after_resume(tmp_path):
    runs = {}
    for name in ("whole", "interrupted", "resumed"):
        module, slow = make(), Slow()
        callbacks = [SaveAtTermination(tmp_path), slow]
        callbacks += [SendSignal(9, signal.SIGINT, "on_validation_batch_start")] if name == "interrupted" else []
        path = tmp_path / "last-terminated.ckpt" if name == "resumed" else None
        data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=9, batch_size=8, val_batches=5)
        given = trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=2, num_sanity_val_steps=0)
        if name == "interrupted":
            with pytest.raises(SystemExit, match="130"):
                given.fit(module, data)
        else:
            given.fit(module, data, ckpt_path=path, weights_only=path is not None or None)
        runs[name] = weights(module), slow.num_batches
    assert [num_batches for _, num_batches in runs.values()] == [10, 1, 10]
    assert equal(runs["resumed"][0], runs["whole"][0])


def test_averaged_weights_are_not_saved_during_validation(tmp_path):
    data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=9, batch_size=8, val_batches=5)
    slow = Slow()
    callbacks = [L.callbacks.EMAWeightAveraging(), SaveAtTermination(tmp_path), slow]
    callbacks.append(SendSignal(9, signal.SIGINT, "on_validation_batch_start"))
    given = trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=2, num_sanity_val_steps=0)
    with pytest.raises(SystemExit, match="130"):
        given.fit(make(), data)
    assert slow.num_batches == 5
    assert torch.load(tmp_path / "last-terminated.ckpt", weights_only=True)["global_step"] == 10


def test_signal_after_the_last_batch_sets_the_status(tmp_path):
    with pytest.raises(SystemExit, match="129"):
        fit(make(), SaveAtTermination(tmp_path), SendSignal(8, signal.SIGHUP, "on_train_end"))
    assert os.listdir(tmp_path) == []


def test_signal_during_a_save_waits_for_it(tmp_path):
    class Save(ModelCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            os.kill(os.getpid(), signal.SIGINT)
            super()._save_checkpoint(trainer, filepath)

    with pytest.raises(SystemExit, match="130"):
        fit(make(), Save(tmp_path, every_n_train_steps=3, filename="{step}"), SaveAtTermination())
    steps = {path.name: torch.load(path, weights_only=True)["global_step"] for path in tmp_path.iterdir()}
    assert steps == {"step=3.ckpt": 3, "last-terminated.ckpt": 3}


def test_training_without_a_signal_is_unchanged(tmp_path):
    fit(make(), SaveAtTermination(tmp_path))
    assert os.listdir(tmp_path) == []
