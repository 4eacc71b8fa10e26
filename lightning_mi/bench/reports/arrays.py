"""Tables of the benchmark of arrays: errors, coverage of the limits, findings and CPU time."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mi.bench.arrays.cell import ArrayCell
from lightning_mi.bench.cells import Grid
from lightning_mi.bench.reports.tables import count, markdown_table, write_csv, write_text
from lightning_mi.bench.results import load_curves

Row = dict[str, Any]


def run_row(cell: ArrayCell, result: dict[str, Any]) -> Row:
    """One line of ``results.csv``; ``error`` is the estimate minus the truth, nats."""
    return {
        "task": cell.task,
        "method": cell.method,
        "samples": cell.samples,
        "seed": cell.seed,
        "true_mi": result["true_mi"],
        "mi": result["mi"],
        "error": result["mi"] - result["true_mi"],
        "lower": result["lower"],
        "upper": result["upper"],
        "p_value": result["p_value"],
        "findings": " ".join(result["findings"]),
        "cpu_seconds": result["cpu_seconds"],
        "failure": result["failure"],
    }


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row for each method and number of samples.

    Args:
        rows: Results of :func:`run_row`.

    Returns:
        ``runs`` and ``failed``; ``mean_absolute_error``; ``common_error``, the same on the runs on which every method
        with these samples has a finite estimate, without the methods that have none; ``common_runs``, their number;
        ``lower`` and ``interval``, each the number of runs whose limits contain the truth and the number with these
        limits; ``cpu_seconds``, the median. Means and medians are NaN without a finite estimate.
    """
    summaries = []
    for samples in _distinct(rows, "samples"):
        of_size = [row for row in rows if row["samples"] == samples]
        common = _common_runs(of_size)
        for method in _distinct(of_size, "method"):
            group = [row for row in of_size if row["method"] == method]
            finite = [row for row in group if math.isfinite(row["error"])]
            with_lower = [row for row in finite if row["lower"] is not None]
            with_both = [row for row in with_lower if row["upper"] is not None]
            summaries.append(
                {
                    "method": method,
                    "samples": samples,
                    "runs": len(group),
                    "failed": len(group) - len(finite),
                    "mean_absolute_error": _mean([abs(row["error"]) for row in finite]),
                    "common_error": _mean([abs(row["error"]) for row in finite if _run(row) in common]),
                    "common_runs": len(common),
                    "lower": (sum(row["lower"] <= row["true_mi"] for row in with_lower), len(with_lower)),
                    "interval": (
                        sum(row["lower"] <= row["true_mi"] <= row["upper"] for row in with_both),
                        len(with_both),
                    ),
                    "cpu_seconds": float(np.median([row["cpu_seconds"] for row in finite])) if finite else math.nan,
                }
            )
    return summaries


def report(grid: Grid[ArrayCell], folder: Path, figures: str = "png") -> list[Path]:
    """Write ``results.csv``, ``table.md`` and the figures; return their paths."""
    from lightning_mi.bench.reports.array_figures import error_figure, size_figure

    rows = [run_row(cell, result) for cell in grid.cells if (result := load_curves(folder, cell)) is not None]
    paths = [folder / "results.csv", folder / "table.md"]
    write_csv(paths[0], rows)
    write_text(paths[1], _markdown(grid, rows))
    for samples in (sizes := sorted(_distinct(rows, "samples"))):
        paths.append(folder / f"errors-n{samples}.{figures}")
        error_figure([row for row in rows if row["samples"] == samples], paths[-1])
    if len(sizes) > 1:
        paths.append(folder / f"sizes.{figures}")
        size_figure(summary(rows), paths[-1])
    return paths


def _markdown(grid: Grid[ArrayCell], rows: Sequence[Row]) -> str:
    seeds = _distinct(rows, "seed")
    lines = [
        f"# MI of two arrays, preset {grid.preset}",
        "",
        f"{count(len(_distinct(rows, 'task')), 'task')} with known MI, {count(len(seeds), 'seed')} "
        f"({', '.join(map(str, seeds))}). Errors are estimates minus truth, in nats. A method skips tasks for which it "
        "is not defined.",
        f"Differences from the preset `paper`: {grid.note}." if grid.note else "Settings: those of the preset.",
        *_failures(rows),
        "",
        "## Methods",
        "",
        "Mean absolute error over all runs of a method, and over the runs on which every method has an estimate. "
        "`lower <= truth` and `truth in [lower, upper]`: runs whose limits hold, of the runs with these limits. CPU "
        "seconds of an estimation: median over runs, one thread, without imports.",
        "",
        _summary_table(rows),
    ]
    for samples in _distinct(rows, "samples"):
        of_size = [row for row in rows if row["samples"] == samples]
        lines += ["", f"## Errors with {samples:,} samples", ""]
        if len(seeds) > 1:
            lines += ["Mean ± standard deviation over seeds.", ""]
        lines += [_task_table(of_size, _error)]
        if any(row["findings"] for row in of_size):
            lines += ["", f"## Findings with {samples:,} samples", ""]
            lines += ["Codes of the findings, with the number of seeds if there are several.", ""]
            lines += [_task_table([row for row in of_size if row["method"].startswith("estimate-")], _findings)]
    return "\n".join(lines)


def _summary_table(rows: Sequence[Row]) -> str:
    heading = ["method", "n", "runs", "failed", "mean absolute error", "on common runs", "lower <= truth"]
    heading += ["truth in [lower, upper]", "CPU s"]
    table = [
        [
            entry["method"],
            f"{entry['samples']:,}",
            str(entry["runs"]),
            str(entry["failed"]),
            _number(entry["mean_absolute_error"], ".3f"),
            f"{_number(entry['common_error'], '.3f')} ({entry['common_runs']})",
            *(f"{holds} of {total}" if total else "-" for holds, total in (entry["lower"], entry["interval"])),
            _number(entry["cpu_seconds"], ".2f"),
        ]
        for entry in summary(rows)
    ]
    return markdown_table(heading, table)


def _task_table(rows: Sequence[Row], text: Callable[[list[Row]], str]) -> str:
    """A row for each task, a column for each method."""
    methods = _distinct(rows, "method")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["method"]), []).append(row)
    table = [
        [
            task,
            f"{next(row['true_mi'] for row in rows if row['task'] == task):.3f}",
            *(text(groups.get((task, method), [])) for method in methods),
        ]
        for task in _distinct(rows, "task")
    ]
    return markdown_table(["task", "truth", *methods], table)


def _error(group: list[Row]) -> str:
    errors = [row["error"] for row in group if math.isfinite(row["error"])]
    if not errors:
        return "failed" if group else "-"
    return f"{np.mean(errors):+.3f}" + (f" ± {np.std(errors, ddof=1):.3f}" if len(errors) > 1 else "")


def _findings(group: list[Row]) -> str:
    # A code can occur for x and for y: it counts once for a run.
    counts = Counter(code for row in group for code in dict.fromkeys(row["findings"].split()))
    return ", ".join(f"{code} {number}" if len(group) > 1 else code for code, number in counts.items()) or "-"


def _failures(rows: Sequence[Row]) -> list[str]:
    failures = [
        f"- {row['task']}, {row['method']}, seed {row['seed']}: {row['failure']}" for row in rows if row["failure"]
    ]
    return ["", "Failed:", "", *failures] if failures else []


def _common_runs(rows: Sequence[Row]) -> set[tuple[str, int]]:
    """Task and seed of the runs on which every method has a finite estimate; methods without any are left out."""
    finite = [row for row in rows if math.isfinite(row["error"])]
    methods = [{_run(row) for row in finite if row["method"] == method} for method in _distinct(finite, "method")]
    return set.intersection(*methods) if methods else set()


def _run(row: Row) -> tuple[str, int]:
    return row["task"], row["seed"]


def _distinct(rows: Sequence[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"
