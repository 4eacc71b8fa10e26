"""Figures of the benchmarks, drawn from recorded curves. Colors: the color-blind safe palette of Okabe and Ito."""

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_mi.bench.grid import Cell
from lightning_mi.bench.reports.readings import READINGS
from lightning_mi.callbacks.tensorboard.figures import JOINT_COLOR as _JOINT
from lightning_mi.callbacks.tensorboard.figures import MARGINAL_COLOR as _MARGINAL

Runs = Sequence[tuple[Cell, dict[str, Any]]]

COLORS = {"original": "#D55E00", "regularized": "#0072B2", "published": "#999999"}
_MIN_WIDTH = 5.0  # inches, for the title and the legend
_SPAN = 200  # span of the exponential average in steps, as in the figures of the paper


def smooth(curve: NDArray[Any], span: int = _SPAN) -> NDArray[Any]:
    """Exponential average with weight 2 / (span + 1), initialized with the first value.

    Example:
        >>> smooth(np.array([1.0, 1.0, 1.0]))
        array([1., 1., 1.])
    """
    out = np.empty(len(curve))
    average, rate = float(curve[0]), 2 / (span + 1)
    for i, x in enumerate(curve):
        average += rate * (float(x) - average)
        out[i] = average
    return out


def staircase_figure(runs: Runs, path: Path) -> None:
    """One panel per loss: estimates of both variants, per batch and by the closest reading, and the true MI."""
    runs = [(cell, curves) for cell, curves in runs if cell.seed == runs[0][0].seed]
    losses = list(dict.fromkeys(cell.loss for cell, _ in runs))
    figure, axes = panels(len(losses), columns=4)
    top = max(float(curves["true_mi"].max()) for _, curves in runs)
    ceiling = math.log(runs[0][0].config["data"]["init_args"]["batch_size"])
    for panel, loss in zip(axes, losses, strict=True):
        loss_runs = [(cell, curves) for cell, curves in runs if cell.loss == loss]
        for cell, curves in loss_runs:
            if cell.variant in ("original", "regularized"):
                color, label = COLORS[cell.variant], cell.variant
                panel.plot(curves["value"], color=color, alpha=0.18, linewidth=0.3)
                panel.plot(smooth(curves["value"]), color=color, linewidth=1.4, label=label)
                if (reading := _closest_reading(cell, curves)) is not None:
                    line = smooth(curves[reading])
                    panel.plot(line, color=color, linewidth=1.2, linestyle=":", label=f"{label}, {READINGS[reading]}")
                mark_divergence(panel, cell, curves)
        truth = max((curves["true_mi"] for _, curves in loss_runs), key=len)
        panel.plot(truth, color="black", linewidth=1.0, label="true MI")
        panel.axhline(ceiling, color="black", linewidth=0.8, linestyle="--", label="log N")
        panel.set_ylim(-0.5, 1.45 * top)
        panel.set_title(loss)
        panel.set_xlabel("step")
        panel.set_ylabel("nats")
    legend_and_save(figure, axes, path, title=f"Estimates over steps, exponential average of span {_SPAN}")


def _closest_reading(cell: Cell, curves: dict[str, Any]) -> str | None:
    """The reading beside that per batch: with averaged weights, normalized unless a regularizer does that."""
    regularized = cell.variant == "regularized" and cell.has_plug_in
    reading = "averaged_plug_in" if regularized else "averaged_normalized"
    if reading in curves and not np.isnan(curves[reading]).all():
        return reading
    return "plug_in" if cell.has_plug_in else None


def terms_figure(runs: Runs, path: Path) -> None:
    """One panel per loss and variant: the value and its two terms over steps."""
    figure, axes = panels(len(runs), columns=columns(runs))
    for panel, (cell, curves) in zip(axes, runs, strict=True):
        truth = float(curves["true_mi"][0])
        panel.plot(curves["joint_term"], color=_JOINT, linewidth=0.5, label="joint term")
        panel.plot(curves["marginal_term"], color=_MARGINAL, linewidth=0.5, label="marginal term")
        panel.plot(curves["value"], color="#0072B2", linewidth=0.5, label="value")
        panel.axhline(truth, color="black", linewidth=0.8, linestyle="--", label="true MI")
        _robust_limits(panel, [curves[name] for name in ("joint_term", "marginal_term", "value")])
        mark_divergence(panel, cell, curves)
        _label_run(panel, cell)
    legend_and_save(figure, axes, path, title="The value and its two terms (nats), every step")


def score_figure(runs: Runs, path: Path) -> None:
    """One panel per loss and variant: scores of joint pairs (x = y) and of all other pairs of symbols over steps."""
    from lightning_mi.bench.recorder import PROBE_EVERY

    figure, axes = panels(len(runs), columns=columns(runs))
    for panel, (cell, curves) in zip(axes, runs, strict=True):
        scores = curves["probe"]
        steps = PROBE_EVERY * np.arange(len(scores))
        diagonal = np.eye(scores.shape[1], dtype=bool)
        for mask, color, label in ((diagonal, _JOINT, "joint pairs"), (~diagonal, _MARGINAL, "other pairs")):
            group = scores[:, mask]
            panel.fill_between(steps, group.min(axis=1), group.max(axis=1), color=color, alpha=0.3, linewidth=0)
            panel.plot(steps, group.mean(axis=1), color=color, linewidth=1.2, label=label)
        mark_divergence(panel, cell, curves)
        _label_run(panel, cell)
    legend_and_save(figure, axes, path, title="Critic scores T: mean (line) and range (band) over pairs of symbols")


def target_figure(runs: Runs, path: Path) -> None:
    """Log-normalizer and value over steps, for each target."""
    figure, axes = panels(2, columns=2)
    shades = ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000")
    for index, (cell, curves) in enumerate(runs):
        color = shades[index % len(shades)]
        axes[0].plot(curves["log_normalizer"], color=color, linewidth=0.7, label=f"target {cell.target:g}")
        axes[0].axhline(cell.target, color=color, linewidth=0.8, linestyle="--")
        axes[1].plot(curves["value"], color=color, linewidth=0.5)
    axes[1].axhline(float(runs[0][1]["true_mi"][0]), color="black", linewidth=0.8, linestyle="--", label="true MI")
    for panel, title in zip(axes, ("log-normalizer", "value"), strict=True):
        panel.set_title(title)
        panel.set_xlabel("step")
        panel.set_ylabel("nats")
    legend_and_save(figure, axes, path, title=f"{runs[0][0].loss}, regularized, by target")


def columns(runs: Runs) -> int:
    """Number of panels in a row: two losses, each with all its variants."""
    return min(4, 2 * len({cell.variant for cell, _ in runs}))


def panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels, ``columns`` in a row."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(3.6 * columns + 0.6, 2.7 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    return figure, axes


def _label_run(panel: Axes, cell: Cell) -> None:
    panel.set_title(f"{cell.loss}, {cell.variant}", fontsize=10)
    panel.set_xlabel("step")


def mark_divergence(panel: Axes, cell: Cell, curves: dict[str, Any]) -> None:
    """Mark the step of a non-finite loss, if there is one."""
    if curves["diverged_at"] is not None:
        panel.axvline(curves["diverged_at"], color=COLORS[cell.variant], linewidth=1.0, linestyle="-.")
        left, right = panel.get_xlim()
        side = "right" if curves["diverged_at"] > (left + right) / 2 else "left"  # towards the middle of the panel
        panel.annotate(
            "not finite",
            (curves["diverged_at"], 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            fontsize=8,
            ha=side,
        )


def _robust_limits(panel: Axes, curves: Sequence[NDArray[Any]]) -> None:
    """Limit the y axis to the central 99 percent: single steps of an exploding run have any magnitude."""
    finite = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    low, high = np.percentile(finite, [0.5, 99.5])
    margin = 0.1 * max(high - low, 1.0)
    panel.set_ylim(low - margin, high + margin)


def legend_and_save(figure: Figure, axes: Sequence[Axes], path: Path, title: str) -> None:
    """Add a title and one common legend to the panels, fit both to the width, and write the figure."""
    figure.set_figwidth(max(figure.get_figwidth(), _MIN_WIDTH))
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    for columns in range(min(len(handles), 6), 0, -1):
        legend = figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=9)
        if columns == 1 or _fits(figure, legend):
            break
        legend.remove()
    heading = figure.suptitle(title, fontsize=11)
    if not _fits(figure, heading):
        heading.set_text(fill(title, math.ceil(len(title) / 2) + 5))
    figure.savefig(path, dpi=130)


def _fits(figure: Figure, artist: Artist) -> bool:
    margin = 0.1 * figure.dpi  # a tenth of an inch on either side
    return bool(artist.get_window_extent().width <= figure.bbox.width - 2 * margin)
