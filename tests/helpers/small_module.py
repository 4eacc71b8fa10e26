"""A small module with batches and trainers."""

from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_mi import MIEstimationModule, bounds, critics
from tests.helpers.reference import Sheet

DIM = 3
STEP_NAMES = {f"train/{name}" for name in ("mi", "joint_term", "marginal_term", "log_normalizer", "loss")}


class Batches:
    """A data loader of given batches; Lightning treats a list as several data loaders."""

    def __init__(self, batches):
        self.batches = list(batches)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class RecordingLogger(DummyLogger):
    """A logger that stores its rows."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def curve(self, name):
        return [row[name] for _, row in self.rows if name in row]


def draw(*sizes, seed=0):
    """Batches of dependent views with these numbers of samples."""
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(size, DIM, generator=generator) for size in sizes]
    return Batches((x, 0.9 * x + 0.4 * torch.randn(x.shape, generator=generator)) for x in xs)


def make(bound=None, cls=MIEstimationModule, **kwargs):
    torch.manual_seed(0)
    critic = kwargs.pop("critic", None) or critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4)
    return cls(critic, bounds.DV() if bound is None else bound, **kwargs)


def trainer(**kwargs):
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "log_every_n_steps": 1, "max_epochs": 1, "accelerator": "cpu"}
    return L.Trainer(**(quiet | kwargs))


def fit(module, train=None, val=None, datamodule=None, **kwargs):
    fitted = trainer(**kwargs)
    if datamodule is not None:
        fitted.fit(module, datamodule=datamodule)
    else:
        fitted.fit(module, draw(8, 8, 8) if train is None else train, val)
    return fitted


def weights(module):
    """Copies of parameters and buffers, without extra states."""
    state = module.state_dict()
    return {name: value.clone() for name, value in state.items() if not name.endswith("_extra_state")}


def sheet_of(module, batch):
    """All scores of a batch, for the float64 reference."""
    t = module.critic.pairwise(*batch).detach().numpy().astype(np.float64)
    return Sheet(t, np.eye(len(t), dtype=bool), ~np.eye(len(t), dtype=bool))


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
