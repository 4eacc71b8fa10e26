"""Modules that are not ours, to be watched, and digits for them."""

import copy
from itertools import pairwise

import lightning.pytorch as L
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers.small_module import trainer


class Classifier(L.LightningModule):
    """A plain classifier."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def mlp(*widths):
    torch.manual_seed(0)
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def noisy():
    """Draws random numbers and counts batches in training."""
    torch.manual_seed(0)
    parts = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.3), nn.ReLU(inplace=True), nn.Linear(32, 10)
    return Classifier(nn.Sequential(*parts))


def digits(train=1437, val=360, batch_size=64, shuffle=True):
    """Loaders of (image, label): 64 pixels from 0 to 1."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[: train + val]
    x, y = torch.tensor(x[order], dtype=torch.float32) / 16, torch.tensor(y[order])
    parts = TensorDataset(x[:train], y[:train]), TensorDataset(x[train:], y[train:])
    return DataLoader(parts[0], batch_size, shuffle=shuffle), DataLoader(parts[1], batch_size)


def watch(module, callback, loaders=None, **kwargs):
    """Train with a callback; return its history as values by name, and the trainer."""
    callbacks = [callback, *kwargs.pop("callbacks", [])]
    fitted = trainer(callbacks=callbacks, **kwargs)
    fitted.fit(module, *(digits(train=256, val=128) if loaders is None else loaders), ckpt_path=None)
    return fitted


class Copies(L.Callback):
    """Copies of the module at each validation."""

    def __init__(self):
        self.modules = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.modules.append(copy.deepcopy(pl_module.net).eval())
