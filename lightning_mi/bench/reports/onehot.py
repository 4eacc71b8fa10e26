"""Tables and figures of the one-hot toy: drift, explosion, and the choice of the target."""

from pathlib import Path
from typing import Any

import numpy as np

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.grid import Cell
from lightning_mi.bench.reports.tables import WINDOWS, count, markdown_table, window_length, write_csv, write_text
from lightning_mi.bench.results import load_curves

_WINDOW = 100  # steps in each of the two averages that the drift compares
_DRIFT_FROM = 1000  # the step from which drift is counted
_EXPLODED = 50.0  # nats, in absolute value; the true log-ratio of joint pairs is log 16
_DEAD = 0.1  # nats: a critic whose scores differ by less carries no information


def run_statistics(curves: dict[str, Any]) -> dict[str, Any]:
    """Summary of one training, in nats.

    Returns:
        ``value``, ``plug_in`` and ``log_normalizer``, means over the last 500 steps; ``drift``, the change of the
        log-normalizer from step 1000 to the end (NaN in a shorter run); the extremes of single-step values and of
        scores over all pairs of symbols; ``diverged_at``; ``exploded`` (the loss is not finite, or a score exceeds 50
        nats in absolute value); ``dead`` (the scores of all pairs are within 0.1 nats at the end).
    """
    value, scores, normalizer = curves["value"], curves["probe"], curves["log_normalizer"]
    is_finite = curves["diverged_at"] is None
    with np.errstate(invalid="ignore"):
        spread = float(scores[-1].max() - scores[-1].min())
        exploded = bool(not is_finite or np.any(~(np.abs(scores) <= _EXPLODED)))
        drift = (
            float(normalizer[-_WINDOW:].mean() - normalizer[_DRIFT_FROM - _WINDOW : _DRIFT_FROM].mean())
            if is_finite and len(normalizer) > _DRIFT_FROM
            else float("nan")
        )
    last = window_length("onehot", curves)
    reading = {
        name: float(curves[name][-last:].mean()) if is_finite else float("nan")
        for name in ("value", "plug_in", "log_normalizer")
    }
    return {
        **reading,
        "drift": drift,
        "value_min": float(np.nanmin(value)),
        "value_max": float(np.nanmax(value)),
        "score_min": float(np.nanmin(scores)),
        "score_max": float(np.nanmax(scores)),
        "diverged_at": curves["diverged_at"],
        "exploded": exploded,
        "dead": bool(is_finite and not spread >= _DEAD),
    }


def report(grid: Grid[Cell], folder: Path, figures: str = "png") -> list[Path]:
    """Write ``results.csv``, ``table.md`` and the figures; return their paths."""
    from lightning_mi.bench.reports.figures import score_figure, target_figure, terms_figure

    runs = [(cell, curves) for cell in grid.cells if (curves := load_curves(folder, cell)) is not None]
    rows = [
        {
            "study": cell.study,
            "loss": cell.loss,
            "variant": cell.variant,
            "target": cell.target,
            "seed": cell.seed,
            **run_statistics(curves),
        }
        for cell, curves in runs
    ]
    write_csv(folder / "results.csv", rows)
    write_text(folder / "table.md", _markdown(grid, rows))
    paths = [folder / "results.csv", folder / "table.md"]
    for study in dict.fromkeys(cell.study for cell, _ in runs):
        study_runs = [(cell, curves) for cell, curves in runs if cell.study == study and cell.seed == runs[0][0].seed]
        if len({cell.target for cell, _ in study_runs}) > 1:
            paths.append(folder / f"{study}.{figures}")
            target_figure(study_runs, paths[-1])
        else:
            paths += [folder / f"{study}-terms.{figures}", folder / f"{study}-scores.{figures}"]
            terms_figure(study_runs, paths[-2])
            score_figure(study_runs, paths[-1])
    return paths


def _markdown(grid: Grid[Cell], rows: list[dict[str, Any]]) -> str:
    table = []
    for key in dict.fromkeys((r["study"], r["loss"], r["variant"], r["target"]) for r in rows):
        group = [r for r in rows if (r["study"], r["loss"], r["variant"], r["target"]) == key]
        table.append(
            [
                *key[:3],
                f"{key[3]:g}",
                *(_range([r[name] for r in group]) for name in ("value", "plug_in", "log_normalizer", "drift")),
                f"{min(r['value_min'] for r in group):.1f} to {max(r['value_max'] for r in group):.1f}",
                f"{min(r['score_min'] for r in group):.0f} to {max(r['score_max'] for r in group):.0f}",
                f"{sum(r['exploded'] for r in group)} of {len(group)}",
                f"{sum(r['diverged_at'] is not None for r in group)} of {len(group)}",
                f"{sum(r['dead'] for r in group)} of {len(group)}",
            ]
        )
    seeds = count(len({r["seed"] for r in rows}), "seed")
    heading = [
        *("study", "loss", "variant", "target", "value", "plug-in", "log-normalizer", "drift"),
        *("single-step values", "scores", "exploded", "not finite", "dead"),
    ]
    return "\n".join(
        [
            f"# One-hot toy, preset {grid.preset}",
            "",
            f"Truth: log 16 = 2.7726 nats. Readings are means over {WINDOWS['onehot']}, lowest to highest seed "
            f"({seeds}, only seeds with a finite loss); `drift` is the change of the "
            f"log-normalizer from step {_DRIFT_FROM} to the end.",
            f"`exploded`: a score above {_EXPLODED:g} nats in absolute value, or a non-finite loss; `not finite`: the "
            f"loss; `dead`: scores of all pairs within {_DEAD} nats of each other at the end.",
            f"Differences from the paper: {grid.note}." if grid.note else "Settings: the paper's.",
            "",
            markdown_table(heading, table),
        ]
    )


def _range(values: list[float]) -> str:
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return "-"
    low, high = (f"{value:.2f}" for value in (min(finite), max(finite)))
    return low if low == high else f"{low} to {high}"
