"""Overhead of InformationPlane: processor time that it adds to a training, per layer and step.

Trainings of a classifier of width 64 at batch size 64, with and without the callback, alternate, so that a slow machine
slows both. The median of the pairs' differences is printed, for readings of the label alone and with noise, and the
share of it that a reading takes.

    python benchmarks/plane_overhead.py                 100 steps between two readings
    python benchmarks/plane_overhead.py --steps 23      as on scikit-learn's digits
"""

import argparse
import statistics
import warnings

import lightning.pytorch as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common import Clock, quiet
from lightning_mi.callbacks import InformationPlane

WIDTH, BATCH, DEPTH, CLASSES = 64, 64, 3, 10
WARM_UP = 10  # steps that are not timed


class Classifier(L.LightningModule):
    """A plain classifier."""

    def __init__(self):
        super().__init__()
        hidden = [part for _ in range(DEPTH) for part in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(WIDTH, CLASSES))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def loaders(steps):
    """Labels that depend on the input through a random network, with noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((steps + 8) * BATCH, WIDTH, generator=generator)
    first, second = (torch.randn(WIDTH, width, generator=generator) / WIDTH**0.5 for width in (WIDTH, CLASSES))
    y = (torch.tanh(x @ first) @ second).argmax(dim=1)
    cut = steps * BATCH
    return DataLoader(TensorDataset(x[:cut], y[:cut]), BATCH), DataLoader(TensorDataset(x[cut:], y[cut:]), BATCH)


def seconds(steps, epochs, callback):
    torch.manual_seed(0)
    clock = Clock(WARM_UP)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*([callback] if callback else []), clock],
    )
    trainer.fit(Classifier(), *loaders(steps))
    return clock.seconds


def measure(steps=100, epochs=4, pairs=5, noise=None):
    """Milliseconds of a plain step, and those that the callback adds per layer and step, of each pair."""
    quiet()
    layers = [f"net.{2 * i + 1}" for i in range(DEPTH)]
    plain, added = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for pair in range(pairs):
            order = (False, True) if pair % 2 else (True, False)
            found = {w: seconds(steps, epochs, InformationPlane(layers, noise=noise) if w else None) for w in order}
            plain.append(1000 * found[False] / (steps * epochs))
            added.append(1000 * (found[True] - found[False]) / (steps * epochs * DEPTH))
    return statistics.median(plain), added


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps between two readings")
    parser.add_argument("--epochs", type=int, default=4, help="readings")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of trainings, with and without")
    options = parser.parse_args()
    for name, noise in (("label", None), ("label and input", 0.3)):
        plain, added = measure(options.steps, options.epochs, options.pairs, noise)
        median = statistics.median(added)
        print(f"{name}: {median:.2f} ms per layer and step ({min(added):.2f} to {max(added):.2f}); a plain step takes")
        print(f"{plain:.2f} ms; a reading takes {median * options.steps:.0f} ms per layer")


if __name__ == "__main__":
    main()
