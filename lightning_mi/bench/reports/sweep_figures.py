"""Figure of a sweep: a metric over one axis, a line for each value of another, panels for the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_mi.bench.reports.figures import legend_and_save, panels
from lightning_mi.bench.reports.summary import Summary, summarize

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def metric_figure(rows: Sequence[Mapping[str, Any]], labels: Sequence[str], metric: str, path: Path) -> None:
    """Mean and standard deviation over seeds of a metric, and the true MI if it is known.

    Args:
        rows: The runs.
        labels: Names of the axes. The last axis with more than two numbers is the x axis; otherwise the last one.
        metric: Name of the metric.
        path: The file; its suffix is the format.
    """
    x = _x_axis(rows, labels)
    others = [label for label in labels if label != x]
    truth = f"{metric.removesuffix('mi')}true_mi" if metric.endswith("/mi") else None
    panel_labels, line_label = others[:-1], others[-1:]
    keys = list(dict.fromkeys(tuple(row[label] for label in panel_labels) for row in rows))
    figure, axes = panels(len(keys), columns=min(len(keys), 3))
    for panel, key in zip(axes, keys, strict=True):
        of_panel = [row for row in rows if tuple(row[label] for label in panel_labels) == key]
        lines = list(dict.fromkeys(tuple(row[label] for label in line_label) for row in of_panel))
        for index, line in enumerate(lines):
            of_line = [row for row in of_panel if tuple(row[label] for label in line_label) == line]
            positions, summary = _points(of_line, x, metric)
            means = [row.values[0].mean for row in summary.rows]
            deviations = [row.values[0].deviation for row in summary.rows]
            color = _COLORS[index % len(_COLORS)]
            name = ", ".join(f"{label} = {value}" for label, value in zip(line_label, line, strict=True))
            panel.errorbar(positions, means, deviations, color=color, marker="o", markersize=4, capsize=3, label=name)
        if truth is not None and all(row.get(truth) is not None for row in of_panel):
            positions, summary = _points(of_panel, x, truth)
            means = [row.values[0].mean for row in summary.rows]
            panel.plot(positions, means, color="black", linewidth=0.8, linestyle="--", label="true MI")
        values = list(dict.fromkeys(row[x] for row in rows))
        if not _numeric(values):
            panel.set_xticks(range(len(values)), values)
        elif _spans_decades(values):
            panel.set_xscale("log")
        panel.set_title(", ".join(f"{label} = {value}" for label, value in zip(panel_labels, key, strict=True)))
        panel.set_xlabel(x)
        panel.set_ylabel(f"{metric}, nats" if metric.endswith("mi") else metric)
    legend_and_save(figure, axes, path, title=f"{metric}: mean and standard deviation over seeds")


def _x_axis(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    values = {label: list(dict.fromkeys(row[label] for row in rows)) for label in labels}
    numeric = [label for label in labels if _numeric(values[label]) and len(values[label]) > 2]
    return [*labels[-1:], *numeric][-1]


def _points(rows: Sequence[Mapping[str, Any]], x: str, metric: str) -> tuple[list[float], Summary]:
    summary = summarize(rows, [x], [metric])
    values = [row.labels[0] for row in summary.rows]
    return [float(value) for value in values] if _numeric(values) else list(map(float, range(len(values)))), summary


def _numeric(values: Sequence[str]) -> bool:
    try:
        return all(isinstance(float(value), float) for value in values)
    except ValueError:
        return False


def _spans_decades(values: Sequence[str]) -> bool:
    numbers = [float(value) for value in values]
    return min(numbers) > 0 and max(numbers) / min(numbers) >= 50
