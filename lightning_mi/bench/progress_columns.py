"""What the terminal shows of finished cells: trainings of each kind, or estimations of arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lightning_mi.bench.arrays.cell import ArrayCell
from lightning_mi.bench.cells import Grid
from lightning_mi.bench.plane.cell import METHODS
from lightning_mi.bench.reports.sweep import STAGES
from lightning_mi.bench.reports.tables import WINDOWS, window_length


class ProgressColumns(NamedTuple):
    """Columns of the table of finished cells.

    Attributes:
        row: The label of a cell's row.
        read: The values of a finished cell, of which a row shows the means; None if it has none.
        outcome: What is shown of a finished cell without values.
        headings: Of the label, the values, and the number of cells without values.
        caption: Of the table.
    """

    row: Callable[[Any], str]
    read: Callable[[Any, dict[str, Any]], list[float] | None]
    outcome: Callable[[dict[str, Any]], str]
    headings: tuple[str, ...]
    caption: str


def progress_columns(grid: Grid[Any]) -> ProgressColumns:
    """The columns of a grid."""
    if grid.report == "arrays":
        return _estimation_columns()
    if grid.report == "plane":
        return _layer_columns()
    if grid.report == "sweep":
        return _sweep_columns()
    return _penalty_columns() if grid.report == "minimize" else _training_columns(grid.report)


def _training_columns(report: str) -> ProgressColumns:
    """Means over the same steps as in the tables of the report."""

    def read(cell: Any, curves: dict[str, Any]) -> list[float] | None:
        if curves["diverged_at"] is not None:
            return None
        length = window_length(report, curves)
        return [float(np.nanmean(curves[name][-length:])) for name in ("value", "plug_in", "log_normalizer")]

    return ProgressColumns(
        row=lambda cell: cell.kind,
        read=read,
        outcome=lambda curves: f"loss not finite at step {curves['diverged_at']}",
        headings=("training", "value", "plug-in", "log-norm.", "not finite"),
        caption=f"nats; mean over {WINDOWS[report]} and over the seeds with a finite loss",
    )


def _estimation_columns() -> ProgressColumns:
    def row(cell: ArrayCell) -> str:
        return f"{cell.method}, n = {cell.samples}"

    def read(cell: ArrayCell, result: dict[str, Any]) -> list[float] | None:
        error = result["mi"] - result["true_mi"]
        return [error, abs(error), result["cpu_seconds"]] if np.isfinite(error) else None

    return ProgressColumns(
        row=row,
        read=read,
        outcome=lambda result: f"failed: {result['failure'] or 'the estimate is not finite'}",
        headings=("method", "error", "abs. error", "CPU s", "failed"),
        caption="mean over tasks and seeds; errors in nats, estimate minus truth",
    )


def _penalty_columns() -> ProgressColumns:
    def read(cell: Any, result: dict[str, Any]) -> list[float] | None:
        if result["diverged_at"] is not None:
            return None
        nuisance, target, error = (float(result[name][-1]) for name in ("mi_nuisance", "mi_target", "head_mse"))
        return [nuisance, target, 100 * error, result["cpu_seconds"]]

    return ProgressColumns(
        row=lambda cell: cell.kind,
        read=read,
        outcome=lambda result: f"loss not finite at step {result['diverged_at']}",
        headings=("penalty", "I(z; s)", "I(z; t)", "task error, %", "CPU s", "not finite"),
        caption="exact values after the last step, nats; the error in percent of t's variance",
    )


def _layer_columns() -> ProgressColumns:
    def read(cell: Any, result: dict[str, Any]) -> list[float] | None:
        readings = result["mi"]  # (epochs, layers, methods); the last method is the reference
        lowest = (readings - readings[..., -1:]).min(axis=(0, 1))[:-1]
        return [*map(float, lowest), result["cpu_seconds"]] if np.isfinite(lowest).all() else None

    return ProgressColumns(
        row=lambda cell: cell.kind,
        read=read,
        outcome=lambda result: "a reading is not finite",
        headings=("network", *METHODS[:-1], "CPU s", "not finite"),
        caption=f"lowest difference from the {METHODS[-1]} probe over epochs and layers, nats; mean over seeds",
    )


def _sweep_columns() -> ProgressColumns:
    def read(cell: Any, result: dict[str, Any]) -> list[float] | None:
        if result["diverged_at"] is not None:
            return None
        metrics = result["metrics"]
        stage = next((stage for stage in STAGES if f"{stage}/mi" in metrics), STAGES[0])
        return [metrics.get(f"{stage}/{name}", float("nan")) for name in ("mi", "mi_standard_error", "true_mi")]

    return ProgressColumns(
        row=lambda cell: cell.kind,
        read=read,
        outcome=lambda result: f"loss not finite at step {result['diverged_at']}",
        headings=("training", "MI", "std. error", "true MI", "not finite"),
        caption="nats, of test, validation or training; mean over seeds",
    )
