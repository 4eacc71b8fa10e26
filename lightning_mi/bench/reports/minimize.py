"""Tables of the benchmark of minimization: the MI that is left, its estimate, and what the penalty costs the task."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.minimize.cell import MinimizeCell
from lightning_mi.bench.minimize.methods import NO_PENALTY, WITHOUT_CRITIC
from lightning_mi.bench.reports.tables import count, markdown_table, write_csv, write_text
from lightning_mi.bench.results import load_curves

Row = dict[str, Any]
Runs = Sequence[tuple[MinimizeCell, dict[str, Any]]]

WINDOW = 200  # last steps over which the estimates are averaged


def run_rows(runs: Runs) -> list[Row]:
    """The lines of ``results.csv``.

    Returns:
        For each run: ``mi_nuisance`` and ``mi_target``, exact I(z; s) and I(z; t) of the last encoder, nats;
        ``head_mse`` and ``best_mse``, the exact task errors of the head and of the best linear head; ``relative_mse``,
        ``head_mse`` over that of the run with the same seed and no penalty (NaN without such a run); ``estimate`` and
        ``estimate_before``, means over the last 200 steps of the penalty's estimate after and before the critic
        trained on the batch; ``below_truth``, the fraction of all steps whose estimate is below the exact value;
        ``audit_error``, the audit minus the exact value (None without an audit).
    """
    unpenalized = {cell.seed: float(result["head_mse"][-1]) for cell, result in runs if cell.method == NO_PENALTY}
    rows = []
    for cell, result in runs:
        truth, estimate, audit = result["mi_nuisance"], result["estimate"], result["audit_mi"]
        rows.append(
            {
                "method": cell.method,
                "critic_steps": cell.critic_steps,
                "seed": cell.seed,
                "mi_nuisance": float(truth[-1]),
                "mi_target": float(result["mi_target"][-1]),
                "head_mse": float(result["head_mse"][-1]),
                "best_mse": float(result["best_mse"][-1]),
                "relative_mse": float(result["head_mse"][-1]) / unpenalized.get(cell.seed, math.nan),
                "estimate": _mean(estimate[-WINDOW:]),
                "estimate_before": _mean(result["estimate_before"][-WINDOW:]),
                "below_truth": _mean(estimate < truth[: len(estimate)]),
                "audit_mi": audit,
                "audit_lower": result["audit_lower"],
                "audit_error": None if audit is None else audit - float(truth[-1]),
                "cpu_seconds": result["cpu_seconds"],
                "diverged_at": result["diverged_at"],
            }
        )
    return rows


def summary(rows: Sequence[Row]) -> list[Row]:
    """One row for each method and number of critic steps.

    Args:
        rows: Results of :func:`run_rows`.

    Returns:
        ``runs`` and ``diverged``; means over the seeds of what a run has; ``lowest`` and ``highest`` I(z; s);
        ``audit_error``, the mean of its absolute value; ``lower``, the number of audits whose lower limit is at most
        the truth and the number of audits; ``cpu_seconds``, the median. Means are NaN without values.
    """
    names = ("mi_nuisance", "mi_target", "relative_mse", "estimate", "estimate_before", "below_truth")
    summaries = []
    for method, steps in dict.fromkeys((row["method"], row["critic_steps"]) for row in rows):
        group = [row for row in rows if (row["method"], row["critic_steps"]) == (method, steps)]
        audited = [row for row in group if row["audit_error"] is not None]
        left = [row["mi_nuisance"] for row in group]
        summaries.append(
            {
                "method": method,
                "critic_steps": steps,
                "runs": len(group),
                "diverged": sum(row["diverged_at"] is not None for row in group),
                **{name: _mean([row[name] for row in group]) for name in names},
                "lowest": min(left),
                "highest": max(left),
                "audit_error": _mean([abs(row["audit_error"]) for row in audited]),
                "lower": (sum(row["audit_lower"] <= row["mi_nuisance"] for row in audited), len(audited)),
                "cpu_seconds": float(np.median([row["cpu_seconds"] for row in group])),
            }
        )
    return summaries


def report(grid: Grid[MinimizeCell], folder: Path, figures: str = "png") -> list[Path]:
    """Write ``results.csv``, ``table.md`` and the figure; return their paths."""
    from lightning_mi.bench.reports.minimize_figures import mi_figure

    runs = [(cell, result) for cell in grid.cells if (result := load_curves(folder, cell)) is not None]
    rows = run_rows(runs)
    paths = [folder / "results.csv", folder / "table.md"]
    write_csv(paths[0], rows)
    write_text(paths[1], _markdown(grid, rows))
    if any(cell.method not in WITHOUT_CRITIC for cell, _ in runs):
        paths.append(folder / f"mi.{figures}")
        mi_figure(runs, paths[-1])
    return paths


def _markdown(grid: Grid[MinimizeCell], rows: Sequence[Row]) -> str:
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    diverged = [row for row in rows if row["diverged_at"] is not None]
    lines = [
        f"# Minimizing mutual information, preset {grid.preset}",
        "",
        f"{count(len(seeds), 'seed')} ({', '.join(map(str, seeds))}). Mutual information in nats.",
        f"Differences from the preset `paper`: {grid.note}." if grid.note else "Settings: those of the preset.",
        "",
        "Exact I(z; s) and I(z; t) after the last step: mean over seeds, and the range of I(z; s). `task error`: mean "
        "squared error of the head over that of the same seed without a penalty. `estimate`: of the penalty, mean over "
        f"the last {WINDOW} steps; `held out`: the same before the critic trained on the batch. `below`: fraction of "
        "all steps whose estimate is below the exact I(z; s). `audit error`: mean absolute error of `estimate` on new "
        "samples; `lower <= truth`: audits whose lower limit holds. CPU seconds: median, without the audit.",
        "",
        _table(rows),
    ]
    if diverged:
        lines += ["", "Stopped at a loss that is not finite; the values are those of the last encoder before it:", ""]
        lines += [
            f"- {row['method']}, critic steps {row['critic_steps'] or '-'}, seed {row['seed']}: "
            f"step {row['diverged_at']}"
            for row in diverged
        ]
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> str:
    heading = ["method", "critic steps", "I(z; s)", "range", "I(z; t)", "task error", "estimate", "held out", "below"]
    heading += ["audit error", "lower <= truth", "CPU s"]
    table = []
    for entry in summary(rows):
        holds, audits = entry["lower"]
        table.append(
            [
                entry["method"],
                "-" if entry["critic_steps"] is None else str(entry["critic_steps"]),
                f"{entry['mi_nuisance']:.3f}",
                f"{entry['lowest']:.3f} to {entry['highest']:.3f}",
                f"{entry['mi_target']:.3f}",
                *(_number(entry[name], ".3f") for name in ("relative_mse", "estimate", "estimate_before")),
                _number(100 * entry["below_truth"], ".0f", " %"),
                _number(entry["audit_error"], ".3f"),
                f"{holds} of {audits}" if audits else "-",
                f"{entry['cpu_seconds']:.1f}",
            ]
        )
    return markdown_table(heading, table)


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _number(value: float, form: str, unit: str = "") -> str:
    return f"{value:{form}}{unit}" if math.isfinite(value) else "-"
