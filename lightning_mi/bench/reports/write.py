"""Write the report of any grid, and summarize its runs."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.reports.summary import Summary, summarize
from lightning_mi.bench.reports.sweep import shown_metrics
from lightning_mi.bench.results import load_curves
from lightning_mi.exceptions import GridError

# Columns of results.csv that are not measured, by kind of report. The seed is none: means are over seeds.
_LABELS = {
    "arrays": ("task", "method", "samples"),
    "gaussian": ("study", "loss", "variant", "reading", "true_mi"),
    "minimize": ("method", "critic_steps"),
    "onehot": ("study", "loss", "variant", "target"),
    "plane": ("epoch", "layer", "method"),
    "supervised": ("study", "loss", "variant", "weight"),
    "contrastive": ("study", "loss", "variant", "weight"),
}


def write_report(grid: Grid[Any], folder: Path, figures: str = "png") -> list[Path]:
    """Write tables and figures of a grid's finished runs; return their paths.

    Args:
        grid: The grid.
        folder: Its results.
        figures: Format of the figures: ``png``, ``pdf`` or ``svg``.
    """
    from lightning_mi.bench.reports.arrays import report as report_arrays
    from lightning_mi.bench.reports.gaussian import report as report_gaussian  # imports matplotlib: seconds
    from lightning_mi.bench.reports.images import report as report_images
    from lightning_mi.bench.reports.minimize import report as report_minimize
    from lightning_mi.bench.reports.onehot import report as report_onehot
    from lightning_mi.bench.reports.plane import report as report_plane
    from lightning_mi.bench.reports.sweep import report as report_sweep

    reports: dict[str, Any] = {
        "arrays": report_arrays,
        "gaussian": report_gaussian,
        "minimize": report_minimize,
        "onehot": report_onehot,
        "plane": report_plane,
        "supervised": report_images,
        "contrastive": report_images,
        "sweep": report_sweep,
    }
    paths: list[Path] = reports[grid.report](grid, folder, figures)
    return paths


def has_finished(grid: Grid[Any], folder: Path) -> bool:
    """Whether a grid has a finished run."""
    return any(load_curves(folder, cell) is not None for cell in grid.cells)


def check_finished(grid: Grid[Any], folder: Path) -> None:
    """Check that a grid has a finished run.

    Raises:
        GridError: If it has none.
    """
    if not has_finished(grid, folder):
        raise GridError(
            f"Got {folder}: none of its {len(grid.cells)} {grid.noun}s is finished. Repeat the same `lightning-mi "
            f"bench` with --output {folder}."
        )


def read_results(grid: Grid[Any], folder: Path) -> list[dict[str, str]]:
    """The lines of ``results.csv``."""
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def label_names(grid: Grid[Any]) -> list[str]:
    """Columns of ``results.csv`` that are not measured, without the seed."""
    return list(grid.cells[0].settings if grid.report == "sweep" else _LABELS[grid.report])


def metric_names(grid: Grid[Any], rows: Sequence[dict[str, str]], chosen: Sequence[str] | None) -> list[str]:
    """Columns of the table of a grid: the chosen ones, or by default those of its report.

    Raises:
        GridError: If a chosen metric is not in ``results.csv``.
    """
    names = [name for name in rows[0] if name not in {*label_names(grid), "seed", "diverged_at"}]
    if grid.report == "sweep" or chosen:
        return shown_metrics(names, chosen)
    return [name for name in names if any(_is_number(row[name]) for row in rows)]


def summary_of(grid: Grid[Any], folder: Path, metrics: Sequence[str] | None = None) -> Summary:
    """Means and standard deviations over seeds of a grid whose report is written."""
    rows = read_results(grid, folder)
    return summarize(rows, label_names(grid), metric_names(grid, rows, metrics))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("True", "False")
    return True
