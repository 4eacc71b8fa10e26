"""The training of the benchmark of layer readings: a classifier of digits, and the probes of its layers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import lightning.pytorch as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_mi.bench.cells import Interrupted
from lightning_mi.bench.plane.cell import LAYERS
from lightning_mi.bench.plane.converged import read_converged
from lightning_mi.bench.plane.grid import Settings
from lightning_mi.callbacks.information_plane import InformationPlane
from lightning_mi.callbacks.watch.probes import LabelProbe
from lightning_mi.callbacks.watch.reading import read_pair
from lightning_mi.callbacks.watch.replay import isolated_rng
from lightning_mi.encoders import MLP

_WIDTHS = (128, 64, 16)
_NUM_PIXELS, _NUM_CLASSES = 64, 10
_PROBE_WIDTH = 64  # as in InformationPlane
_TRAIN = 0.8  # of the images


class Split(NamedTuple):
    """Images (N, 64), pixels 0 to 1, with their digits (N,): to train on, and held out."""

    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]


def split_digits(seed: int) -> Split:
    """scikit-learn's digits, split at random: 1,437 to train on, 360 held out.

    Args:
        seed: Of the split.

    Source: Alpaydin and Kaynak 1998.
    """
    from sklearn.datasets import load_digits  # half a second

    pixels, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels))
    images, labels = torch.from_numpy(pixels[order] / 16).float(), torch.from_numpy(digits[order]).long()
    size = int(_TRAIN * len(images))
    return Split((images[:size], labels[:size]), (images[size:], labels[size:]))


@final
class PlainClassifier(L.LightningModule):
    """An MLP 64-128-64-16-10 that minimizes the cross entropy of the digit.

    Args:
        learning_rate: Of Adam.
    """

    def __init__(self, learning_rate: float) -> None:
        super().__init__()
        self.net = MLP(_NUM_PIXELS, _WIDTHS, out_dim=_NUM_CLASSES).layers
        self._learning_rate = learning_rate

    def forward(self, images: Tensor) -> Tensor:
        """(N, 10) logits of (N, 64) images."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The cross entropy."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the cross entropy."""
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self._learning_rate)


@torch.no_grad()
def layer_rows(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The outputs of the layers of a sequence, (N, D), by path."""
    rows, output = {}, images
    for name, layer in net.named_children():
        output = layer(output)
        if (path := f"net.{name}") in LAYERS:
            rows[path] = output
    return rows


@final
class LayerProbes(L.Callback):
    """Reads I(layer; label) by all methods at the end of some epochs, on the held-out images.

    Args:
        plane: The callback of the same trainer, whose readings are copied.
        split: The images that the probes are fitted to, and read on.
        settings: With the learning rate of the online probes.
        epochs: Epochs, from 1.
        report: Called at each epoch with the fraction of the epochs done.
        stopped: Called at every step and for every layer; the training stops once it returns True.

    Attributes:
        readings: (epochs, layers, methods, 2), value and standard error, nats.
    """

    def __init__(
        self,
        plane: InformationPlane,
        split: Split,
        settings: Settings,
        epochs: Sequence[int],
        report: Callable[[float], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._plane, self._split, self._epochs = plane, split, epochs
        self._report, self._stopped = report, stopped
        dims = dict(zip(LAYERS, (*_WIDTHS, _NUM_CLASSES), strict=True))
        self._online = [LabelProbe(dims[path], _NUM_CLASSES, _PROBE_WIDTH) for path in LAYERS]
        parameters = [parameter for probe in self._online for parameter in probe.parameters()]
        self._optimizer = torch.optim.Adam(parameters, lr=settings.online_learning_rate)
        self._stored: list[dict[str, Tensor]] = []
        self.readings: list[list[list[tuple[float, float]]]] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the activations of the last epoch."""
        self._report(trainer.current_epoch / self._epochs[-1])
        self._stored = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Store the activations of the step; take a step of the online probes on them.

        Raises:
            Interrupted: If ``stopped`` returned True.
        """
        if self._stopped():
            raise Interrupted
        assert isinstance(pl_module, PlainClassifier)
        images, labels = batch
        rows = layer_rows(pl_module.net, images)
        self._stored.append(rows | {"label": labels})
        losses = [probe.loss(rows[path], labels) for path, probe in zip(LAYERS, self._online, strict=True)]
        self._optimizer.zero_grad()
        torch.autograd.backward(losses)
        self._optimizer.step()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the layers, after the validation.

        Raises:
            Interrupted: If ``stopped`` returned True.
        """
        if trainer.current_epoch + 1 not in self._epochs:
            return
        assert isinstance(pl_module, PlainClassifier)
        (images, labels), (held_out_images, held_out_labels) = self._split
        rows, held_out = layer_rows(pl_module.net, images), layer_rows(pl_module.net, held_out_images)
        stored = {name: torch.cat([step[name] for step in self._stored]) for name in self._stored[0]}
        read = self._plane.history[-1].readings
        readings = []
        for path, online in zip(LAYERS, self._online, strict=True):
            if self._stopped():
                raise Interrupted
            held = held_out[path], held_out_labels
            with isolated_rng():
                naive = read_pair((stored[path], stored["label"]), held, noise=0.0, hidden=_PROBE_WIDTH, seed=0)
            converged = read_converged(_arrays(rows[path], labels), _arrays(*held))
            methods = read[f"plane/{path}/label"], naive, online.read(*held), converged
            readings.append([(float(reading.value), float(reading.standard_error)) for reading in methods])
        self.readings.append(readings)


def read_layers(
    split: Split,
    settings: Settings,
    epochs: Sequence[int],
    seed: int,
    report: Callable[[float], None] = lambda fraction: None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[PlainClassifier, NDArray[np.float64]]:
    """Train the network and read its layers by all methods.

    Args:
        split: The data.
        settings: Settings of the training.
        epochs: Epochs, from 1, in ascending order.
        seed: Of the weights and of the order of the batches; it sets torch's global generator.
        report: Called with the fraction of the epochs done.
        stopped: Called at every step and for every layer; the training stops once it returns True.

    Returns:
        The network, and readings (epochs, layers, methods, 2): value and standard error, nats.

    Raises:
        Interrupted: If ``stopped`` returned True.
    """
    torch.manual_seed(seed)
    module, plane = PlainClassifier(settings.learning_rate), InformationPlane(LAYERS)
    probes = LayerProbes(plane, split, settings, epochs, report, stopped)
    trainer = L.Trainer(
        max_epochs=epochs[-1],
        accelerator="cpu",
        devices=1,
        callbacks=[plane, probes],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    train, held_out = (TensorDataset(*part) for part in split)
    order = torch.Generator().manual_seed(seed)
    batches = DataLoader(train, settings.batch_size, shuffle=True, generator=order)
    trainer.fit(module, batches, DataLoader(held_out, settings.batch_size))
    return module, np.array(probes.readings)


def _arrays(rows: Tensor, labels: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    return rows.double().numpy(), labels.numpy()
