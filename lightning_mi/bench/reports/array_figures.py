"""Figures of the benchmark of arrays. Colors: the color-blind safe palette of Okabe and Ito."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_mi.bench.reports.figures import legend_and_save, panels

_COLORS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000", "#999999", "#F0E442")
_MARKERS = "osD^vPX<>"
_LINEAR = 0.1  # nats around 0 in which the axis of errors is linear; beyond, it is logarithmic


def error_figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One line per task, one marker per method: the mean error over seeds, and its range.

    Args:
        rows: Runs with the same number of samples.
        path: The PNG file.
    """
    tasks, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "method"))
    figure = Figure(figsize=(9.0, 1.6 + 0.3 * len(tasks)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, method in enumerate(methods):
        shift = 0.5 * (index / max(1, len(methods) - 1) - 0.5)
        places, means, ranges = [], [], []
        for place, task in enumerate(tasks):
            errors = [
                r["error"] for r in rows if (r["task"], r["method"]) == (task, method) and np.isfinite(r["error"])
            ]
            if errors:
                mean = float(np.mean(errors))
                places.append(place + shift)
                means.append(mean)
                ranges.append((mean - min(errors), max(errors) - mean))
        bars = np.maximum(np.array(ranges).reshape(-1, 2).T, 0.0)  # rounding of a mean can exceed the range
        axes.errorbar(means, places, xerr=bars, **_style(index), linestyle="", label=method)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=_LINEAR)
    axes.set_yticks(range(len(tasks)), tasks, fontsize=8)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.grid(axis="y", linewidth=0.3)
    axes.set_xlabel("error, nats (logarithmic beyond 0.1)")
    title = f"Estimate minus true MI with {rows[0]['samples']:,} samples"
    legend_and_save(figure, [axes], path, title=title)


def size_figure(summaries: Sequence[dict[str, Any]], path: Path) -> None:
    """Mean absolute error on common runs, and CPU time, against the number of samples; a line for each method.

    Args:
        summaries: Rows of :func:`lightning_mi.bench.reports.arrays.summary`.
        path: The PNG file.
    """
    figure, axes = panels(2, columns=2)
    quantities = {"common_error": "mean absolute error on common runs, nats", "cpu_seconds": "CPU seconds, median"}
    for panel, (quantity, label) in zip(axes, quantities.items(), strict=True):
        for index, method in enumerate(dict.fromkeys(entry["method"] for entry in summaries)):
            points = sorted((entry["samples"], entry[quantity]) for entry in summaries if entry["method"] == method)
            panel.plot(*zip(*points, strict=True), **_style(index), label=method)
        panel.set_xscale("log")
        panel.set_yscale("log")
        sizes = sorted({entry["samples"] for entry in summaries})
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.minorticks_off()
        panel.set_xlabel("samples")
        panel.set_ylabel(label)
    legend_and_save(figure, axes, path, title="Error and CPU time against the number of samples")


def _style(index: int) -> dict[str, Any]:
    return {
        "color": _COLORS[index % len(_COLORS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "markersize": 4,
        "linewidth": 1.0,
    }
