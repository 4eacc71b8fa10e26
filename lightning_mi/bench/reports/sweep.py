"""Table and figures of a sweep: metrics of each combination of values, mean and standard deviation over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.reports.summary import format_table, summarize
from lightning_mi.bench.reports.tables import write_csv, write_text
from lightning_mi.bench.results import load_curves
from lightning_mi.bench.sweep.cell import SweepCell
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.suggestions import did_you_mean

STAGES = ("test", "val", "train")  # the table shows the metrics of the first one that was logged
_SHOWN = ("mi", "mi_standard_error", "true_mi", "accuracy")


def run_rows(grid: Grid[SweepCell], folder: Path) -> list[dict[str, Any]]:
    """The lines of ``results.csv``: values of the axes, seed, ``diverged_at``, and every logged metric.

    The metrics of a training with a non-finite loss are those of its last logged step.
    """
    runs = [(cell, curves) for cell in grid.cells if (curves := load_curves(folder, cell)) is not None]
    names = sorted({name for _, curves in runs for name in curves["metrics"]})
    return [
        {
            **cell.settings,
            "seed": cell.seed,
            "diverged_at": curves["diverged_at"],
            **{name: curves["metrics"].get(name) for name in names},
        }
        for cell, curves in runs
    ]


def shown_metrics(names: Sequence[str], chosen: Sequence[str] | None = None) -> list[str]:
    """The metrics of the table.

    Args:
        names: Names of the logged metrics.
        chosen: Those to show; by default MI, its standard error, the true MI and accuracies, of test, validation or
            training. Without an MI, all of the stage.

    Raises:
        GridError: If a chosen metric was not logged.

    Example:
        >>> shown_metrics(["train/mi", "val/loss", "val/mi", "val/true_mi"])
        ['val/mi', 'val/true_mi']
        >>> shown_metrics(["train/loss", "train/penalty"])
        ['train/loss', 'train/penalty']
    """
    for name in chosen or ():
        if name not in names:
            suggestion = did_you_mean(name, names) or f" Known: {', '.join(names)}."
            raise GridError(f"Got --metrics {name}: no run logged it.{suggestion}")
    if chosen:
        return list(chosen)
    stage = next((stage for stage in STAGES if f"{stage}/mi" in names), None)
    if stage is not None:
        return [name for name in (f"{stage}/{each}" for each in _SHOWN) if name in names] + [
            name for name in names if name.startswith("probe/")
        ]
    for stage in STAGES:
        if found := [name for name in names if name.startswith(f"{stage}/")]:
            return found
    return list(names)


def report(grid: Grid[SweepCell], folder: Path, figures: str = "png") -> list[Path]:
    """Write ``results.csv``, ``table.md`` and a figure for each metric with a truth; return their paths."""
    from lightning_mi.bench.reports.sweep_figures import metric_figure

    rows = run_rows(grid, folder)
    labels = list(grid.cells[0].settings)
    metrics = shown_metrics([name for name in rows[0] if "/" in name])
    paths = [folder / "results.csv", folder / "table.md"]
    write_csv(paths[0], rows)
    write_text(paths[1], _markdown(grid, rows, format_table(summarize(rows, labels, metrics))))
    for name in metrics:
        if name.endswith(("/mi", "accuracy", "nearest_neighbor")) and labels:
            paths.append(folder / f"{name.replace('/', '-')}.{figures}")
            metric_figure(rows, labels, name, paths[-1])
    return paths


def _markdown(grid: Grid[SweepCell], rows: Sequence[dict[str, Any]], table: str) -> str:
    seeds = sorted({row["seed"] for row in rows})
    spread = "Seed" if len(seeds) == 1 else "Mean ± standard deviation over the seeds"
    fixed = [f"Settings of all runs: {grid.note}."] if grid.note else []
    return "\n".join(
        [
            f"# Sweep of the recipe {grid.name}",
            "",
            f"{spread} {', '.join(map(str, seeds))}; MI in nats. `mi_standard_error` is the mean of the runs' own "
            "standard errors, over the samples of one evaluation. `results.csv` has every logged metric of each run.",
            *fixed,
            "",
            table,
        ]
    )
