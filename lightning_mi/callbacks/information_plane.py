"""InformationPlane: the information of a module's layers about the label and the input, during training."""

from collections.abc import Sequence
from typing import final

import lightning.pytorch as L

from lightning_mi.callbacks.tensorboard.media import log_figure
from lightning_mi.callbacks.watch.engine import AbstractWatch, Pair
from lightning_mi.callbacks.watch.layers import Reduction, find_layers
from lightning_mi.callbacks.watch.reading import Reading
from lightning_mi.callbacks.watch.replay import Forward
from lightning_mi.callbacks.watch.report import plane_figure
from lightning_mi.callbacks.watch.sources import Key, label_source, parse_source
from lightning_mi.utilities.checks import check_finite, check_whole

_PREFIX = "plane"


@final
class InformationPlane(AbstractWatch):
    r"""Reads I(layer; label) of the layers of any LightningModule at each validation.

    For each layer a small classifier is fitted from the start to about 2,000 recent training samples, with early
    stopping, and read on the validation samples: the entropy of the labels minus the classifier's cross entropy, a
    lower bound of I(layer; label) up to noise. The training samples pass through the network as it is at the
    validation, in evaluation mode, so that the reading does not lag behind the training.

    With ``noise``, it also reads I(layer + noise; input), and that of ``layer_pairs``, by InfoNCE: a lower bound, at
    most log n of the n held-out samples. Without noise, the layer of a deterministic network has infinite information
    about the input if it is continuous, and the entropy of its values if it is discrete: on n samples, log n. So the
    number depends on the noise, and values near log n say only that it is large.

    ``trainer.validate`` reads too; its probes are cross-fitted to the validation samples, and read less.

    Logs for each layer ``plane/LAYER/label`` and, with noise, ``plane/LAYER/input`` and ``plane/LAYER/LAYER``, each
    with ``_standard_error`` (over held-out samples), ``_train_gap`` (the value on the samples that the probe was fitted
    to minus the held-out value: what probe and network have overfitted) and ``_limit`` (H(label), or log n). They are
    on one TensorBoard chart; loggers that take images get a figure; a table of the last readings is printed at the end.

    The watched training does not change: weights are bitwise equal with and without the callback. Layers run hooks in
    validation and in the replay only; RNG states and training modes are restored. The history is in the checkpoint, and
    the training batches since the last reading, of which there are none after a validation.

    Args:
        layers: Paths of submodules, such as ``"encoder.2"``, or patterns, such as ``"encoder.*"``.
        label: The label in a batch: an index, a key, a path such as ``"meta.label"``, or a function of the batch. By
            default entry 1 of a tuple, or the key "label", "labels" or "y".
        noise: Standard deviation of Gaussian noise, in units of the root mean square of the deviations of a layer's
            features; None reads the label only.
        input: The input in a batch; by default entry 0 of a tuple, or the key "input", "inputs" or "x".
        layer_pairs: Pairs of layers, for I(first + noise; second).
        reduction: How the output of a layer becomes one row for each sample. ``"mean"`` averages maps (N, C, H, W) over
            space and sequences (N, T, D) over T; ``"flatten"`` keeps all; or a function. The information is that of the
            reduced output.
        forward: ``forward(pl_module, batch)`` runs the layers in the replay. By default it is the module's ``forward``
            on the input. Without either, probes are cross-fitted to the validation samples, and read less.
        buffer: Training samples that the probes are fitted to, over all ranks: the newest since the last reading.
        held_out: Validation samples that they are read on, at most, over all ranks.
        hidden: Width of the probes' hidden layer; 0 for linear probes.
        every_n_epochs: Readings are taken in the validations of every n-th epoch.
        figure_every: Readings between two figures. The last reading of a fit has one too.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range, or ``layer_pairs`` are given without noise.
        MisconfigurationException: At the start of fit, there is no validation.
        WatchError: At the start of fit, a layer does not exist or a pattern matches nothing; at the first step, a layer
            runs twice, does not run or returns no tensor, or a batch has no label.

    Source: Barber and Agakov 2003; Choi and Lee 2022; Goldfeld et al. 2019 (noise); McAllester and Stratos 2020 (the
    limit log n); van den Oord et al. 2018 (InfoNCE); Saxe et al. 2018 (deterministic layers).

    Example:
        >>> plane = InformationPlane(["net.0", "net.2"])
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[plane])
    """

    def __init__(
        self,
        layers: Sequence[str],
        *,
        label: Key | None = None,
        noise: float | None = None,
        input: Key | None = None,
        layer_pairs: Sequence[tuple[str, str]] = (),
        reduction: Reduction = "mean",
        forward: Forward | None = None,
        buffer: int = 2048,
        held_out: int = 2048,
        hidden: int = 64,
        every_n_epochs: int = 1,
        figure_every: int = 10,
    ) -> None:
        if isinstance(layers, str) or not layers:
            raise ValueError(f'Got layers={layers!r}: give a list of paths or patterns, such as ["encoder.*"].')
        if noise is not None:
            check_finite("noise", noise, "in units of the deviation of a layer's features")
            if noise <= 0:
                raise ValueError(f"Got noise={noise}: it must be positive. None reads I(layer; label) only.")
        if layer_pairs and noise is None:
            raise ValueError(
                f"Got layer_pairs={list(layer_pairs)!r} without noise: two layers of a deterministic network have "
                "infinite information about each other, or log n on n samples. Pass noise, such as noise=0.1."
            )
        check_whole("figure_every", figure_every, 1)
        super().__init__(reduction, forward, input, buffer, held_out, hidden, every_n_epochs)
        self._layers, self._noise = tuple(layers), noise
        self._layer_pairs = [(first, second) for first, second in layer_pairs]
        self._label, self._figure_every = label_source(label), figure_every
        self._label_key = label
        self._paths: list[str] = []

    @property
    def state_key(self) -> str:
        """The key in the checkpoint, which depends on the variables: a trainer may have several planes."""
        label = self._label_key if isinstance(self._label_key, int | str | None) else "function"
        return f"InformationPlane{self._layers, self._noise, self._layer_pairs, label}"

    def find_pairs(self, pl_module: L.LightningModule) -> list[Pair]:
        """I(layer; label) of each layer; with noise, that of input and pairs of layers."""
        self._paths = list(find_layers(pl_module, self._layers))
        pairs = [Pair(f"{_PREFIX}/{path}/label", parse_source(path), self._label) for path in self._paths]
        if self._noise is not None:
            pairs += [
                Pair(f"{_PREFIX}/{path}/input", parse_source(path), self._input, self._noise) for path in self._paths
            ]
            pairs += [
                Pair(f"{_PREFIX}/{first}/{second}", parse_source(first), parse_source(second), self._noise)
                for first, second in self._layer_pairs
            ]
        return pairs

    def draw(self, trainer: L.Trainer) -> None:
        """Draw the layers' curves and paths, at every n-th reading."""
        if len(self._history) % self._figure_every == 0:
            self._log_figure(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the table, and draw the last readings."""
        super().on_train_end(trainer, pl_module)
        if trainer.is_global_zero and len(self._history) % self._figure_every:
            self._log_figure(trainer)

    def _log_figure(self, trainer: L.Trainer) -> None:
        if trainer.loggers:
            figure = plane_figure(self._curves("label"), self._curves("input"), self._noise or 0.0)
            log_figure(trainer.loggers, "information_plane", figure, self._history[-1].step)

    def _curves(self, what: str) -> dict[str, list[tuple[int, Reading]]]:
        names = {path: f"{_PREFIX}/{path}/{what}" for path in self._paths}
        return {
            path: [(r.epoch + 1, r.readings[name]) for r in self._history]
            for path, name in names.items()
            if name in self._history[-1].readings
        }
