"""The figure of the benchmark of layer readings. Colors: the color-blind safe palette of Okabe and Ito."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mi.bench.plane.cell import LAYERS, METHODS, REFERENCE, PlaneCell
from lightning_mi.bench.reports.figures import legend_and_save, panels

_COLORS = dict(zip(METHODS, ("#0072B2", "#E69F00", "#D55E00", "black"), strict=True))
_NUM_CLASSES = 10


def layer_figure(runs: Sequence[tuple[PlaneCell, dict[str, Any]]], path: Path) -> None:
    """One panel per layer: I(layer; label) of each method over epochs, mean and range over seeds.

    Args:
        runs: Cells with their results.
        path: The PNG file.
    """
    epochs = runs[0][0].config["epochs"]
    readings = np.stack([result["mi"] for _, result in runs])  # (seeds, epochs, layers, methods)
    figure, axes = panels(len(LAYERS), columns=2)
    for layer, (panel, name) in enumerate(zip(axes, LAYERS, strict=True)):
        for method, label in enumerate(METHODS):
            values, color = readings[:, :, layer, method], _COLORS[label]
            panel.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, linewidth=0)
            style = "--" if label == REFERENCE else "-"
            panel.plot(epochs, values.mean(axis=0), style, color=color, marker="o", markersize=3, label=label)
        panel.axhline(math.log(_NUM_CLASSES), color="black", linewidth=0.8, linestyle=":", label="log 10")
        panel.set_xscale("log")
        panel.set_xticks(epochs, labels=map(str, epochs))
        panel.set_xticks([], minor=True)
        panel.set_ylim(min(0.0, float(readings.min())) - 0.1, math.log(_NUM_CLASSES) + 0.2)
        panel.set_title(name)
        panel.set_xlabel("epoch")
        panel.set_ylabel("I(layer; label), nats")
    legend_and_save(figure, axes, path, title="Held-out I(layer; label), mean and range over seeds")
