"""Tables and figures of the Gaussian staircase: bias, deviation and error on each level, with published values."""

import csv
import math
from collections import defaultdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.grid import Cell
from lightning_mi.bench.reports.readings import READINGS
from lightning_mi.bench.reports.tables import markdown_table, write_csv, write_text
from lightning_mi.bench.results import load_curves

_PUBLISHED_SOURCE = "Choi & Lee code 2020"


def level_statistics(curves: dict[str, Any], reading: str) -> list[dict[str, float]]:
    """Bias, standard deviation and mean squared error of the single-step estimates on each level.

    Args:
        curves: Curves of a training.
        reading: One of ``READINGS`` that the curves contain.

    Returns:
        One row for each level, in nats (squared for ``mse``). A level with an infinite estimate has an infinite error;
        a level on which the training diverged is missing.
    """
    rows = []
    truth, estimates = curves["true_mi"], curves[reading].astype(np.float64)
    for mi in np.unique(truth):
        on_level = truth == mi
        if curves["diverged_at"] is not None and mi == truth[-1]:
            continue
        errors = estimates[on_level] - mi
        with np.errstate(invalid="ignore"):
            rows.append(
                {
                    "true_mi": float(mi),
                    "steps": int(on_level.sum()),
                    "bias": float(errors.mean()),
                    "standard_deviation": float(errors.std()),
                    "mse": float(np.square(errors).mean()),
                    "log_normalizer": float(curves["log_normalizer"][on_level].mean()),
                }
            )
    return rows


def report(grid: Grid[Cell], folder: Path, figures: str = "png") -> list[Path]:
    """Write ``results.csv``, ``table.md`` and a figure for each study; return their paths."""
    from lightning_mi.bench.reports.figures import staircase_figure

    runs = [(cell, curves) for cell in grid.cells if (curves := load_curves(folder, cell)) is not None]
    rows = [
        {
            "study": cell.study,
            "loss": cell.loss,
            "variant": cell.variant,
            "seed": cell.seed,
            "reading": reading,
            **level,
            "diverged_at": curves["diverged_at"],
        }
        for cell, curves in runs
        for reading in READINGS
        if reading in curves and not np.isnan(curves[reading]).all()
        for level in level_statistics(curves, reading)
    ]
    paths = [folder / "results.csv", folder / "table.md"]
    write_csv(paths[0], rows)
    write_text(paths[1], _markdown(grid, runs, rows))
    for study in dict.fromkeys(cell.study for cell, _ in runs):
        paths.append(folder / f"{study}.{figures}")
        staircase_figure([(cell, curves) for cell, curves in runs if cell.study == study], paths[-1])
    return paths


def _markdown(grid: Grid[Cell], runs: list[tuple[Cell, dict[str, Any]]], rows: list[dict[str, Any]]) -> str:
    seeds = sorted({cell.seed for cell, _ in runs})
    diverged = [f"{c.name} at step {r['diverged_at']}" for c, r in runs if r["diverged_at"] is not None]
    lines = [
        f"# Gaussian staircase, preset {grid.preset}",
        "",
        "Each cell: bias / standard deviation / mean squared error of the single-step estimates over the whole "
        f"level, in nats; {'seed' if len(seeds) == 1 else 'mean over seeds'} {', '.join(map(str, seeds))}.",
        f"Differences from the paper: {grid.note}." if grid.note else "Settings: the paper's.",
        "`per batch` is the bound without the penalty; `plug-in` is the joint term with the log-normalizer at its "
        "target; `averaged` reads with averaged weights, and `normalized` subtracts their log-normalizer over recent "
        "batches. `published` variants are regularized as in the authors' "
        f"released code, and were run here; rows `published as` contain the authors' values ({_PUBLISHED_SOURCE}).",
        f"Diverged (loss not finite): {'; '.join(diverged) or 'none'}. `-`: the training diverged before the "
        "end of the level.",
    ]
    studies = list(dict.fromkeys(cell.study for cell, _ in runs))
    for study in studies:
        cells = [cell for cell, _ in runs if cell.study == study]
        table = _table(cells, [row for row in rows if row["study"] == study])
        lines += ["", *([f"## {study}", ""] if len(studies) > 1 else []), table]
    return "\n".join(lines)


def _table(cells: list[Cell], rows: list[dict[str, Any]]) -> str:
    """The table of one study."""
    levels = sorted({row["true_mi"] for row in rows})
    published = _published() if cells[0].study == "staircase" else {}
    table = []
    for loss, paper, variant, plug_in in dict.fromkeys((c.loss, c.paper, c.variant, c.has_plug_in) for c in cells):
        rows_of_kind = [row for row in rows if (row["loss"], row["variant"]) == (loss, variant)]
        for reading, label in READINGS.items():
            values = [
                _mean_cell([r for r in rows_of_kind if r["reading"] == reading and r["true_mi"] == mi]) for mi in levels
            ]
            if any(value != "-" for value in values) and (plug_in or not reading.endswith("plug_in")):
                table.append([loss, variant, label, *values])
        if variant != "published" and paper is not None:
            for suffix, label in (("", "per batch"), (", plug-in", "plug-in")):
                key = f"{'Re' if variant == 'regularized' else ''}{paper}{suffix}"
                if key in published:
                    values = [published[key].get(mi, "-") for mi in levels]
                    table.append([loss, variant, f"{label}, published as {key.removesuffix(suffix)}", *values])
    return markdown_table(["loss", "variant", "reading", *(f"MI = {mi:g}" for mi in levels)], table)


def _mean_cell(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "-"
    bias, mse = (float(np.mean([row[key] for row in rows])) for key in ("bias", "mse"))
    deviation = math.sqrt(float(np.mean([row["standard_deviation"] ** 2 for row in rows])))
    return " / ".join(_number(x) for x in (bias, deviation, mse))


def _number(x: float) -> str:
    return f"{x:.2f}" if abs(x) < 1000 else f"{x:.1e}"


def _published() -> dict[str, dict[float, str]]:
    """Published values as cells of the table, by estimator and true MI."""
    cells: dict[str, dict[float, str]] = defaultdict(dict)
    with files("lightning_mi.bench").joinpath("published/gaussian.csv").open() as file:
        for row in csv.DictReader(file):
            variance, mse = row["variance"], row["mse"]
            deviation = _number(math.sqrt(float(variance))) if variance else "-"
            cell = f"{_number(float(row['bias']))} / {deviation} / {_number(float(mse)) if mse else '-'}"
            cells[row["estimator"]][float(row["truth"])] = cell
    return cells
