"""Tables of the benchmark of layer readings: I(layer; label) by each method, beside the converged probe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.plane.cell import LAYERS, METHODS, REFERENCE, PlaneCell
from lightning_mi.bench.reports.tables import count, markdown_table, write_csv, write_text
from lightning_mi.bench.results import load_curves

Row = dict[str, Any]
Runs = Sequence[tuple[PlaneCell, dict[str, Any]]]

TOLERANCE = 0.1  # nats that a test allows InformationPlane below a converged probe


def run_rows(runs: Runs) -> list[Row]:
    """The lines of ``results.csv``.

    Returns:
        For each seed, epoch, layer and method: ``mi``, the held-out value; ``standard_error``, over held-out samples;
        ``difference``, ``mi`` minus that of the converged probe of the same layer; nats.
    """
    rows = []
    for cell, result in runs:
        differences = result["mi"] - result["mi"][..., METHODS.index(REFERENCE), None]
        for index in np.ndindex(differences.shape):
            epoch, layer, method = index
            rows.append(
                {
                    "seed": cell.seed,
                    "epoch": cell.config["epochs"][epoch],
                    "layer": LAYERS[layer],
                    "method": METHODS[method],
                    "mi": float(result["mi"][index]),
                    "standard_error": float(result["standard_error"][index]),
                    "difference": float(differences[index]),
                }
            )
    return rows


def summary(rows: Sequence[Row]) -> list[Row]:
    """One row for each method but the converged probe.

    Args:
        rows: Results of :func:`run_rows`.

    Returns:
        ``difference``, the mean over seeds, epochs and layers; ``lowest``, the row with the largest shortfall;
        ``below``, the number of readings more than 0.1 nats below the converged probe; ``readings``, their number.
    """
    summaries = []
    for method in METHODS:
        if method != REFERENCE and (group := [row for row in rows if row["method"] == method]):
            differences = [row["difference"] for row in group]
            summaries.append(
                {
                    "method": method,
                    "difference": float(np.mean(differences)),
                    "lowest": group[int(np.argmin(differences))],
                    "below": sum(difference < -TOLERANCE for difference in differences),
                    "readings": len(group),
                }
            )
    return summaries


def report(grid: Grid[PlaneCell], folder: Path, figures: str = "png") -> list[Path]:
    """Write ``results.csv``, ``table.md`` and the figure; return their paths."""
    from lightning_mi.bench.reports.plane_figures import layer_figure

    runs = [(cell, result) for cell in grid.cells if (result := load_curves(folder, cell)) is not None]
    rows = run_rows(runs)
    paths = [folder / name for name in ("results.csv", "table.md", f"layers.{figures}")]
    write_csv(paths[0], rows)
    write_text(paths[1], _markdown(grid, runs, rows))
    layer_figure(runs, paths[2])
    return paths


def _markdown(grid: Grid[PlaneCell], runs: Runs, rows: Sequence[Row]) -> str:
    seeds = [cell.seed for cell, _ in runs]
    seconds = np.median([result["cpu_seconds"] for _, result in runs])
    return "\n".join(
        [
            f"# Reading layers, preset {grid.preset}",
            "",
            f"{count(len(seeds), 'seed')} ({', '.join(map(str, seeds))}). Mutual information in nats. CPU seconds of a "
            f"training with all readings: {seconds:.0f} (median).",
            f"Differences from the preset `paper`: {grid.note}." if grid.note else "Settings: those of the preset.",
            "",
            f"Held-out I(layer; label), mean over seeds; in parentheses, the difference from `{REFERENCE}`. "
            f"`standard error`: of one held-out value of `{REFERENCE}`, mean over seeds. All methods read the same "
            "samples.",
            "",
            _readings_table(rows),
            "",
            f"Differences from `{REFERENCE}` over seeds, epochs and layers; `below`: readings more than {TOLERANCE} "
            "nats below it.",
            "",
            _summary_table(rows),
        ]
    )


def _readings_table(rows: Sequence[Row]) -> str:
    others = [method for method in METHODS if method != REFERENCE]
    table = []
    for epoch, layer in dict.fromkeys((row["epoch"], row["layer"]) for row in rows):
        group = [row for row in rows if (row["epoch"], row["layer"]) == (epoch, layer)]

        def mean(name: str, method: str, group: Sequence[Row] = group) -> float:
            return float(np.mean([row[name] for row in group if row["method"] == method]))

        table.append(
            [
                str(epoch),
                layer,
                f"{mean('mi', REFERENCE):.3f}",
                f"{mean('standard_error', REFERENCE):.3f}",
                *(f"{mean('mi', method):.3f} ({mean('difference', method):+.3f})" for method in others),
            ]
        )
    return markdown_table(["epoch", "layer", REFERENCE, "standard error", *others], table)


def _summary_table(rows: Sequence[Row]) -> str:
    table = []
    for entry in summary(rows):
        lowest = entry["lowest"]
        table.append(
            [
                entry["method"],
                f"{entry['difference']:+.3f}",
                f"{max(0.0, -lowest['difference']):.3f}",
                f"seed {lowest['seed']}, epoch {lowest['epoch']}, {lowest['layer']}",
                f"{entry['below']} of {entry['readings']}",
            ]
        )
    return markdown_table(["method", "mean difference", "largest shortfall", "at", "below"], table)
