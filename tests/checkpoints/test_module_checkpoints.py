"""Contents of a module's checkpoint, and loading it."""

import enum
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from lightning_mi import MIEstimationModule, bounds, critics, pairs, regularizers
from lightning_mi.checkpoints.loading import explain_mismatch
from lightning_mi.cli.main import main
from lightning_mi.data import GaussianDataModule

DIM, STEPS = 3, 6

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 1,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "data": {
        "class_path": "lightning_mi.data.GaussianDataModule",
        "init_args": {"dim": DIM, "mi": 1.0, "steps_per_mi": STEPS, "batch_size": 8, "val_batches": 1},
    },
    "model": {
        "class_path": "lightning_mi.MIEstimationModule",
        "init_args": {
            "critic": {
                "class_path": "lightning_mi.critics.CalibratedCritic",
                "init_args": {
                    "critic": {
                        "class_path": "lightning_mi.critics.JointCritic",
                        "init_args": {"x_dim": DIM, "y_dim": DIM, "hidden": [4]},
                    }
                },
            },
            "bound": {"class_path": "lightning_mi.bounds.MINE", "init_args": {"ema_rate": 0.25}},
            "regularizer": {
                "class_path": "lightning_mi.regularizers.Squared",
                "init_args": {
                    "weight": {
                        "class_path": "lightning_mi.regularizers.LinearWarmup",
                        "init_args": {"weight": 0.5, "steps": 4},
                    }
                },
            },
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.125}},
        },
    },
}


def parts(bound=None, scale=True):
    """Parts of a module; two calls share no parameter."""
    return {
        "critic": critics.CalibratedCritic(critics.JointCritic(DIM, DIM, hidden=(4,)), scale=scale),
        "bound": bounds.MINE(ema_rate=0.25) if bound is None else bound,
        "regularizer": regularizers.Squared(weight=regularizers.LinearWarmup(weight=0.5, steps=4)),
    }


def fit(module, *callbacks, ckpt_path=None, seed=0, max_epochs=1):
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        max_epochs=max_epochs,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )
    data = GaussianDataModule(dim=DIM, mi=[1.0, 2.0], steps_per_mi=STEPS // 2, batch_size=8, val_batches=1, seed=seed)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def saved(module, folder):
    path = folder / "module.ckpt"
    fit(module).save_checkpoint(path)
    return path


def is_plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


@pytest.fixture
def from_command_line(tmp_path, monkeypatch):
    """The checkpoint that `lightning-mi fit` leaves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    assert main(["fit", "--config", "config.yaml"]) == 0
    [path] = tmp_path.rglob("*.ckpt")
    return path


# Saving.


def test_checkpoint_holds_bound_and_critic_state(tmp_path):
    baseline = nn.Linear(DIM, 1)
    for bound in (bounds.MINE(ema_rate=0.25), bounds.TUBA(baseline)):
        module = MIEstimationModule(**parts(bound))
        start = weights(module)
        state = torch.load(saved(module, tmp_path), weights_only=True)["state_dict"]
        assert same(state, weights(module))
        learned = ["critic.offset", "critic.log_scale", "critic.calibrated"]
        learned += ["bound.log_average", "bound.num_updates"] if isinstance(bound, bounds.MINE) else []
        learned += ["bound.baseline.weight", "bound.baseline.bias"] if isinstance(bound, bounds.TUBA) else []
        assert [name for name in learned if torch.equal(state[f"mi_loss.{name}"], start[f"mi_loss.{name}"])] == []


def test_state_dict_holds_no_metrics():
    module = MIEstimationModule(**parts())
    names = {name for name in module.state_dict() if not name.startswith(("mi_loss.critic", "mi_loss.bound"))}
    assert names == {"mi_loss._extra_state", "mi_loss.regularizer._extra_state"}


def test_only_plain_values_are_recorded(tmp_path):
    module = MIEstimationModule(
        **parts(),
        pairs=pairs.AllPairs(),
        encoder=[nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)],
        optimizer=partial(torch.optim.SGD, lr=0.1),
        scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1),
        scheduler_interval="step",
    )
    plain = {"scheduler_interval": "step", "probe": None, "on_non_finite": "raise", "encoder_chunk_size": None}
    plain |= {"prediction": None, "head": None, "encoder_momentum": None}
    assert dict(module.hparams) == plain
    assert dict(module.hparams_initial) == plain
    content = torch.load(saved(module, tmp_path), weights_only=True)
    assert dict(content["hyper_parameters"]) == plain


def test_subclass_records_its_plain_hyper_parameters(tmp_path):
    module = Widened(width=7, **parts())
    path = saved(module, tmp_path)
    assert torch.load(path, weights_only=True)["hyper_parameters"]["width"] == 7
    loaded = Widened.load_from_checkpoint(path, **parts())
    assert loaded.width == 7
    assert same(weights(loaded), weights(module))


class Mode(enum.StrEnum):
    FAST = "fast"


class Version(NamedTuple):
    number: int = 1


LOOK_PLAIN = [np.float64(0.5), Mode.FAST, [Version()], {Mode.FAST: 1}]


@pytest.mark.parametrize("value", LOOK_PLAIN, ids=str)
def test_subclasses_of_plain_types_are_not_recorded(value, tmp_path):
    path = saved(Widened(width=value, **parts()), tmp_path)
    assert "width" not in torch.load(path, weights_only=True)["hyper_parameters"]
    assert Widened.load_from_checkpoint(path, width=value, **parts()).width is value


class Widened(MIEstimationModule):
    def __init__(self, width, **kwargs) -> None:
        super().__init__(**kwargs)
        self.width = width


# Loading.


def test_module_built_in_python_loads_with_its_parts(tmp_path):
    module = MIEstimationModule(**parts(bounds.TUBA(nn.Linear(DIM, 1))))
    path = saved(module, tmp_path)
    loaded = MIEstimationModule.load_from_checkpoint(path, **parts(bounds.TUBA(nn.Linear(DIM, 1))))
    assert same(weights(loaded), weights(module))
    assert loaded.critic is not module.critic


def test_command_line_records_plain_values_only(from_command_line):
    content = torch.load(from_command_line, weights_only=True)
    recorded = dict(content["hyper_parameters"])
    assert is_plain(recorded)
    assert recorded["bound"] == CONFIG["model"]["init_args"]["bound"] | {"init_args": {"ema_rate": 0.25}}
    assert content["state_dict"]["mi_loss.bound.num_updates"] == STEPS


def test_command_line_module_loads_without_arguments(from_command_line):
    loaded = MIEstimationModule.load_from_checkpoint(from_command_line)
    assert same(weights(loaded), torch.load(from_command_line, weights_only=True)["state_dict"])
    assert isinstance(loaded.bound, bounds.MINE)
    assert loaded.bound.ema_rate == 0.25
    loaded.regularizer.step = 2
    assert loaded.regularizer.current_weight() == 0.25
    optimizer = loaded.configure_optimizers()
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.SGD, 0.125)


def test_arguments_replace_recorded_parts(from_command_line):
    named = parts(bounds.MINE(ema_rate=0.5), scale=False)
    loaded = MIEstimationModule.load_from_checkpoint(
        from_command_line, **named, optimizer=partial(torch.optim.SGD, lr=0.75)
    )
    assert same(weights(loaded), torch.load(from_command_line, weights_only=True)["state_dict"])
    assert loaded.bound.ema_rate == 0.5
    assert loaded.configure_optimizers().param_groups[0]["lr"] == 0.75


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match=r"^another error$"), explain_mismatch(Path("a.ckpt")):
        raise RuntimeError("another error")


# Resuming.


class StopAt(L.Callback):
    """Saves and stops after a number of steps."""

    def __init__(self, steps, path):
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


class Losses(L.Callback):
    def __init__(self):
        self.recorded = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.recorded.append(float(outputs["loss"]))


def test_resumed_run_ends_with_equal_weights(tmp_path):
    stop = 2
    torch.manual_seed(1)
    whole, losses = MIEstimationModule(**parts()), Losses()
    fit(whole, losses, max_epochs=2)
    torch.manual_seed(1)
    fit(MIEstimationModule(**parts()), StopAt(stop, tmp_path / "at.ckpt"), max_epochs=2)
    torch.manual_seed(2)
    resumed, late_losses = MIEstimationModule(**parts()), Losses()
    fit(resumed, late_losses, max_epochs=2, ckpt_path=tmp_path / "at.ckpt")
    assert late_losses.recorded == losses.recorded[stop:]
    assert len(losses.recorded) == 2 * STEPS
    assert same(weights(resumed), weights(whole))


def test_resume_does_not_recalibrate_a_critic(tmp_path):
    still = partial(torch.optim.SGD, lr=0.0)
    path = saved(MIEstimationModule(**parts(), optimizer=still), tmp_path)
    offset = torch.load(path, weights_only=True)["state_dict"]["mi_loss.critic.offset"]
    resumed = MIEstimationModule(**parts(), optimizer=still)
    fit(resumed, ckpt_path=path, seed=1, max_epochs=2)
    assert torch.equal(resumed.critic.offset, offset)
    fresh = MIEstimationModule(**parts(), optimizer=still)
    fresh.load_state_dict(resumed.state_dict())
    fresh.critic.get_buffer("calibrated").fill_(False)
    fit(fresh, seed=1)
    assert not torch.equal(fresh.critic.offset, offset)
