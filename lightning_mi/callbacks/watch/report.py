"""Table and figure of readings."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_mi.callbacks.watch.reading import Reading

Curve = Sequence[tuple[int, Reading]]  # epochs, counted from 1


def reading_table(readings: Mapping[str, Reading]) -> str:
    """Readings as text, a row each; nats.

    Example:
        >>> print(reading_table({"plane/net.0/label": Reading(2.1, 0.02, 0.1, 2.3, 1400, 360)}))
                            MI  error    gap  limit  fitted  held out
        plane/net.0/label  2.10   0.02   0.10   2.30    1400       360
    """
    width = max(map(len, readings))
    lines = [f"{'':{width}}  {'MI':>5}  {'error':>5}  {'gap':>5}  {'limit':>5}  {'fitted':>6}  {'held out':>8}"]
    for name, reading in readings.items():
        numbers = "  ".join(f"{number:5.2f}" for number in reading[:4])
        lines.append(f"{name:{width}}  {numbers}  {reading.num_fitted:6d}  {reading.num_held_out:8d}")
    return "\n".join(lines)


def plane_figure(labels: Mapping[str, Curve], inputs: Mapping[str, Curve], noise: float) -> Figure:
    """I(layer; label) of each layer over epochs; and, with readings of the input, the information plane.

    Args:
        labels: Readings of I(layer; label) of each layer, by its name.
        inputs: Readings of I(layer + noise; input); may be empty.
        noise: Its deviation, in units of that of the layer's features.

    Example:
        >>> curve = [(1, Reading(1.0, 0.1, 0.0, 2.3, 100, 100)), (2, Reading(2.0, 0.1, 0.0, 2.3, 100, 100))]
        >>> len(plane_figure({"net.0": curve}, {"net.0": curve}, noise=0.1).axes)
        2
    """
    # Fixed axes: a layout engine would take longer than everything else.
    panels = 2 if inputs else 1
    figure = Figure(figsize=(5.2 * panels, 4.0), dpi=100)
    width = 1 / panels
    axes = [figure.add_axes((width * (i + 0.13), 0.13, width * 0.83, 0.77)) for i in range(panels)]
    colors = dict(zip(labels, colormaps["viridis"](np.linspace(0.0, 0.88, len(labels))), strict=True))
    for name, curve in labels.items():
        epochs, values, errors = _columns(curve)
        axes[0].fill_between(epochs, values - errors, values + errors, color=colors[name], alpha=0.2, linewidth=0)
        axes[0].plot(epochs, values, color=colors[name], marker=".", label=name)
    limit = max((reading.limit for curve in labels.values() for _, reading in curve), default=math.nan)
    axes[0].axhline(limit, color="0.4", linestyle="--", linewidth=1, label="H(label)")
    axes[0].set_xlabel("epoch")
    axes[0].set_ylabel("I(layer; label), held out (nats)")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(loc="best", fontsize=8)
    if inputs:
        _draw_plane(axes[1], labels, inputs, noise, colors)
    return figure


def _draw_plane(
    axes: Axes, labels: Mapping[str, Curve], inputs: Mapping[str, Curve], noise: float, colors: Mapping[str, object]
) -> None:
    """Each layer's path; its points grow with the epoch."""
    for name, curve in inputs.items():
        _, x, x_errors = _columns(curve)
        _, y, y_errors = _columns(labels[name])
        sizes = np.linspace(8, 60, len(x))
        axes.plot(x, y, color=colors[name], linewidth=1, alpha=0.7)
        axes.scatter(x, y, s=sizes, color=colors[name], label=name)
        axes.errorbar(x[-1:], y[-1:], y_errors[-1:], x_errors[-1:], color=colors[name], linewidth=1)
    axes.set_xlabel(f"I(layer + noise {noise:g}; input), held out (nats)")
    axes.set_ylabel("I(layer; label), held out (nats)")
    axes.set_title("points grow with the epoch", fontsize=9)


def _columns(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    epochs = np.array([epoch for epoch, _ in curve])
    values = np.array([reading.value for _, reading in curve])
    return epochs, values, np.array([reading.standard_error for _, reading in curve])
