"""Figures of the supervised and contrastive benchmarks, drawn from recorded curves."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mi.bench.grid import Cell
from lightning_mi.bench.reports.figures import COLORS, Runs, columns, legend_and_save, mark_divergence, panels, smooth
from lightning_mi.callbacks.tensorboard.figures import scatter_by_label

_VARIANTS = ("original", "regularized")


def _first_seed(runs: Runs) -> list[tuple[Cell, dict[str, Any]]]:
    """One run for each loss and variant: the first seed, and the first weight."""
    chosen: dict[tuple[str, str], tuple[Cell, dict[str, Any]]] = {}
    for cell, curves in runs:
        if cell.variant in _VARIANTS:
            chosen.setdefault((cell.loss, cell.variant), (cell, curves))
    return list(chosen.values())


def estimate_figure(runs: Runs, path: Path) -> None:
    """One panel per loss: original and regularized estimates over training steps, with the true MI if it is known."""
    runs = _first_seed(runs)
    losses = list(dict.fromkeys(cell.loss for cell, _ in runs))
    figure, axes = panels(len(losses), columns=3)
    truth = float(runs[0][1]["true_mi"][0])
    for panel, loss in zip(axes, losses, strict=True):
        for cell, curves in runs:
            if cell.loss == loss:
                value = np.where(np.isfinite(curves["value"]), curves["value"], np.nan)
                known = value[~np.isnan(value)]
                color = COLORS[cell.variant]
                panel.plot(value, color=color, alpha=0.2, linewidth=0.3)
                if len(known):
                    span = max(2, min(200, len(known) // 40))
                    steps = np.flatnonzero(~np.isnan(value))
                    panel.plot(steps, smooth(known, span), color=color, linewidth=1.4, label=cell.variant)
                mark_divergence(panel, cell, curves)
        if not math.isnan(truth):
            panel.axhline(truth, color="black", linewidth=0.8, linestyle="--", label="truth")
            panel.set_ylim(-0.5 * truth, 1.6 * truth)
        panel.set_title(loss)
        panel.set_xlabel("step")
        panel.set_ylabel("nats")
    legend_and_save(figure, axes, path, title="Estimates over training steps, smoothed")


def accuracy_figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars of the test accuracy of each loss and variant: mean and standard deviation over seeds."""
    losses = list(dict.fromkeys(row["loss"] for row in rows))
    kinds = list(dict.fromkeys((row["variant"], row["weight"]) for row in rows))
    kinds.sort(key=lambda kind: (("original", "regularized", "published").index(kind[0]), -kind[1]))
    figure, (panel,) = panels(1, columns=1)
    figure.set_size_inches(1.6 + 1.3 * len(losses), 4.0)
    width = 0.8 / len(kinds)
    for position, (variant, weight) in enumerate(kinds):
        means, deviations = [], []
        for loss in losses:
            accuracies = [
                row["accuracy"]
                for row in rows
                if (row["loss"], row["variant"], row["weight"]) == (loss, variant, weight)
                and math.isfinite(row["accuracy"])
            ]
            means.append(np.mean(accuracies) if accuracies else math.nan)
            deviations.append(np.std(accuracies, ddof=1) if len(accuracies) > 1 else math.nan)
        places = np.arange(len(losses)) + (position - (len(kinds) - 1) / 2) * width
        weights = sum(kind[0] == variant for kind in kinds)
        label = f"{variant}, weight {weight:g}" if weights > 1 else variant
        shade = 1.0 - 0.3 * sum(kind[0] == variant for kind in kinds[:position])
        panel.bar(
            places, means, 0.92 * width, yerr=deviations, color=COLORS[variant], alpha=shade, capsize=2, label=label
        )
    panel.set_xticks(np.arange(len(losses)), losses)
    panel.set_ylim(0, 1.05)
    panel.set_ylabel("test accuracy")
    several = len({row["seed"] for row in rows}) > 1
    title = "Test accuracy, mean and standard deviation over seeds" if several else "Test accuracy, one seed"
    legend_and_save(figure, [panel], path, title=title)


def map_figure(runs: Runs, path: Path) -> None:
    """One panel per loss and variant: test features in two dimensions, colored by label."""
    runs = _first_seed(runs)
    figure, axes = panels(len(runs), columns=columns(runs))
    for panel, (cell, curves) in zip(axes, runs, strict=True):
        if "map" in curves:
            scatter_by_label(panel, curves["map"], curves["map_labels"], size=4)
        else:
            panel.annotate("features not finite", (0.5, 0.5), xycoords="axes fraction", ha="center")
        panel.set_title(f"{cell.loss}, {cell.variant}", fontsize=10)
        panel.set_xticks([])
        panel.set_yticks([])
    legend_and_save(figure, axes, path, title="Test features, first two principal components, colored by label")
