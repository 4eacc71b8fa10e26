"""Random numbers, metrics and logged curves of a resumed training equal those of an uninterrupted one."""

import datetime
import os
import random

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import multiprocessing as mp
from torch import nn

from lightning_mi import MIEstimationModule, bounds, critics, pairs
from lightning_mi.data import GaussianDataModule
from lightning_mi.exceptions import InexactResumeWarning
from lightning_mi.regularizers import Squared
from tests.helpers.ranks import become_rank, free_port
from tests.helpers.small_module import DIM, RecordingLogger, equal, trainer, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later
STEPS = 4  # an epoch


class SaveAt(Checkpoint):
    """Saves after a number of steps, in a given hook, and interrupts the training."""

    def __init__(self, steps, path, hook="on_train_batch_end"):
        self.steps, self.path = steps, path
        setattr(self, hook, self._save)

    def _save(self, trainer, *_):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


class Noise(L.Callback):
    """Draws from every RNG at each step."""

    def __init__(self):
        self.drawn = []

    def on_train_batch_end(self, *_):
        self.drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))


def plateau(optimizer):
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.1, patience=0)
    scheduler.monitor = "train/mi_micro"  # type: ignore[attr-defined]  # read by Lightning
    return scheduler


def make(scheduler=plateau, regularizer=None):
    torch.manual_seed(3)
    encoder = [nn.Sequential(nn.Linear(DIM, DIM), nn.Dropout(0.3)) for _ in range(2)]
    critic = critics.JointCritic(DIM, DIM, hidden=(4,))
    parts = {"pairs": pairs.Derangement(), "encoder": encoder, "scheduler": scheduler, "regularizer": regularizer}
    return MIEstimationModule(critic, bounds.MINE(ema_rate=0.25), **parts)


def run(*callbacks, path=None, draw_first=0, scheduler=plateau, regularizer=None, **kwargs):
    """Train; return the logged values, the random numbers and the final weights."""
    torch.manual_seed(4)
    random.seed(4)
    np.random.seed(4)
    logger, noise, module = RecordingLogger(), Noise(), make(scheduler, regularizer)
    torch.rand(draw_first)  # different random numbers on each rank
    kwargs = {"max_epochs": 3, "num_sanity_val_steps": 0, "enable_checkpointing": bool(callbacks), **kwargs}
    given = trainer(logger=logger, callbacks=[noise, *callbacks], **kwargs)
    data = GaussianDataModule(dim=DIM, mi=1.0, steps_per_mi=STEPS, batch_size=8, val_batches=2)
    try:
        given.fit(module, data, ckpt_path=path, weights_only=path is not None or None)
    except SystemExit:
        assert callbacks
    logged = {(step, name, value) for step, row in logger.rows for name, value in row.items()}
    return logged, noise.drawn, weights(module)


HALF = {"val_check_interval": 0.5}


@pytest.mark.parametrize(
    ("hook", "step", "kwargs"),
    [
        ("on_train_batch_end", 3, {}),
        ("on_train_batch_end", STEPS, {}),
        ("on_train_batch_end", 3 * STEPS, {}),
        ("on_train_batch_end", 2, HALF),
        ("on_train_batch_end", STEPS, HALF),
        ("on_train_batch_end", STEPS, {"limit_val_batches": 0}),
        ("on_train_batch_end", STEPS, {"check_val_every_n_epoch": 2}),
        ("on_train_batch_end", 2 * STEPS, {"check_val_every_n_epoch": 2}),
        ("on_train_batch_end", 3, {"accumulate_grad_batches": 2, "limit_train_batches": 3}),
        ("on_validation_batch_end", STEPS, {}),
        ("on_validation_end", STEPS, {}),
        ("on_train_epoch_end", STEPS, {"scheduler": None}),
        ("on_train_batch_end", STEPS + 2, {}),
    ],
)
def test_resume_repeats_logs_random_numbers_and_weights(hook, step, kwargs, tmp_path):
    logged, drawn, ended = run(**kwargs)
    logged_before, drawn_before, _ = run(SaveAt(step, tmp_path / "at.ckpt", hook), **kwargs)
    logged_after, late_drawn, late_ended = run(path=tmp_path / "at.ckpt", **kwargs)
    assert late_drawn == drawn[len(drawn_before) :]
    assert len(drawn_before) < len(drawn) or step == 3 * STEPS
    assert logged_before | logged_after == logged
    assert {"train/mi", "train/mi_micro"} <= {name for _, name, _ in logged}
    assert "limit_val_batches" in kwargs or "val/mi" in {name for _, name, _ in logged}
    assert equal(late_ended, ended)


def test_each_rank_resumes_its_random_numbers_and_metrics(tmp_path):
    path = tmp_path / "at.ckpt"
    for kwargs in ({"name": "whole"}, {"name": "first", "save": path}, {"name": "late", "path": path}):
        fork(tmp_path, **kwargs)
    whole, first, late = (torch.load(tmp_path / name, weights_only=False) for name in ("whole", "first", "late"))
    assert [drawn for _, drawn, _ in late] == [drawn[3:] for _, drawn, _ in whole]
    assert whole[0][1] != whole[1][1]
    assert first[0][0] | late[0][0] == whole[0][0]
    assert all(equal(resumed[2], uninterrupted[2]) for resumed, uninterrupted in zip(late, whole, strict=True))


def fork(folder, name, save=None, path=None):
    mp.start_processes(_rank, (free_port(), folder, name, save, path), nprocs=2, start_method="fork")
    torch.save([torch.load(folder / f"{name}{rank}", weights_only=False) for rank in range(2)], folder / name)


def _rank(rank, port, folder, name, save, path):
    become_rank(rank, port)
    os.environ.pop("PL_GLOBAL_SEED", None)  # of another test; it would seed both ranks equally
    strategy = DDPStrategy(process_group_backend="gloo", timeout=datetime.timedelta(seconds=60))
    environment = {
        "strategy": strategy,
        "devices": 2,
        "plugins": [LightningEnvironment()],
        "use_distributed_sampler": False,
    }
    callbacks = [] if save is None else [SaveAt(3, save)]
    torch.save(run(*callbacks, path=path, draw_first=rank, **environment), folder / f"{name}{rank}")


def test_another_world_size_warns(tmp_path):
    run(SaveAt(3, tmp_path / "at.ckpt"))
    checkpoint = torch.load(tmp_path / "at.ckpt", weights_only=True)
    checkpoint["lightning_mi"]["ranks"] *= 2
    torch.save(checkpoint, tmp_path / "two.ckpt")
    with pytest.warns(InexactResumeWarning, match="world size 2 at world size 1"):
        _, drawn, _ = run(path=tmp_path / "two.ckpt")
    assert len(drawn) == 3 * STEPS - 3


def test_added_regularizer_resumes_with_a_warning(tmp_path):
    run(SaveAt(3, tmp_path / "at.ckpt"))
    with pytest.warns(InexactResumeWarning, match=r"regularizer=None \(now Squared\): .* with other parts"):
        logged, drawn, _ = run(path=tmp_path / "at.ckpt", regularizer=Squared(weight=0.1))
    assert len(drawn) == 3 * STEPS - 3
    averages = [value for _, name, value in logged if name == "train/mi_plug_in"]
    assert len(averages) == 3
    assert np.isfinite(averages).all()


def test_loading_weights_only_does_not_resume(tmp_path):
    run(SaveAt(3, tmp_path / "at.ckpt"))
    parts = {"critic": make().critic, "bound": make().bound, "pairs": make().pairs, "encoder": list(make().encoders)}
    loaded = MIEstimationModule.load_from_checkpoint(tmp_path / "at.ckpt", **parts)
    assert not loaded._resuming.pending


def test_checkpoint_without_our_entry_resumes(tmp_path):
    run(SaveAt(3, tmp_path / "at.ckpt"))
    checkpoint = torch.load(tmp_path / "at.ckpt", weights_only=True)
    del checkpoint["lightning_mi"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    _, drawn, _ = run(path=tmp_path / "old.ckpt")
    assert len(drawn) == 3 * STEPS - 3
