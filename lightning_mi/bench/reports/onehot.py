"""Tables and figures of the one-hot toy: drifting, explosion, and the choice of the target."""

from pathlib import Path
from typing import Any

import numpy as np

from lightning_mi.bench.grid import Grid
from lightning_mi.bench.reports.tables import WINDOWS, count, markdown_table, window_length, write_csv, write_text
from lightning_mi.bench.results import load_curves

_WINDOW = 100  # steps that the drift compares
_DRIFT_FROM = 1000  # the step from which drift is counted
_EXPLODED = 50.0  # nats: the true log-ratios are log 16 and, for pairs that never occur, as low as training takes them
_DEAD = 0.1  # nats: a critic whose scores of all pairs differ by less tells nothing


def run_statistics(curves: dict[str, Any]) -> dict[str, Any]:
    """What one training shows; averages over its last 500 steps, in nats.

    Returns:
        value, plug_in, log_normalizer; ``drift``, the change of the log-normalizer from step 1000 to the end (NaN in a
        shorter run); the extremes of single-step values and of scores over all pairs of symbols; ``diverged_at``; and
        the verdicts ``exploded`` (the loss not finite, or a score beyond 50 nats either way) and ``dead`` (scores of
        all pairs within 0.1 nats at the end).
    """
    value, scores, normalizer = curves["value"], curves["probe"], curves["log_normalizer"]
    alive = curves["diverged_at"] is None
    with np.errstate(invalid="ignore"):
        spread = float(scores[-1].max() - scores[-1].min())
        exploded = bool(not alive or np.any(~(np.abs(scores) <= _EXPLODED)))
        drift = (
            float(normalizer[-_WINDOW:].mean() - normalizer[_DRIFT_FROM - _WINDOW : _DRIFT_FROM].mean())
            if alive and len(normalizer) > _DRIFT_FROM
            else float("nan")
        )
    last = window_length("onehot", curves)
    reading = {
        name: float(curves[name][-last:].mean()) if alive else float("nan")
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
        "dead": bool(alive and not spread >= _DEAD),
    }


def report(grid: Grid, folder: Path) -> list[Path]:
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
        of_study = [(cell, curves) for cell, curves in runs if cell.study == study and cell.seed == runs[0][0].seed]
        if len({cell.target for cell, _ in of_study}) > 1:
            paths.append(folder / f"{study}.png")
            target_figure(of_study, paths[-1])
        else:
            paths += [folder / f"{study}-terms.png", folder / f"{study}-scores.png"]
            terms_figure(of_study, paths[-2])
            score_figure(of_study, paths[-1])
    return paths


def _markdown(grid: Grid, rows: list[dict[str, Any]]) -> str:
    table = []
    for key in dict.fromkeys((r["study"], r["loss"], r["variant"], r["target"]) for r in rows):
        mine = [r for r in rows if (r["study"], r["loss"], r["variant"], r["target"]) == key]
        table.append(
            [
                *key[:3],
                f"{key[3]:g}",
                *(_range([r[name] for r in mine]) for name in ("value", "plug_in", "log_normalizer", "drift")),
                f"{min(r['value_min'] for r in mine):.1f} to {max(r['value_max'] for r in mine):.1f}",
                f"{min(r['score_min'] for r in mine):.0f} to {max(r['score_max'] for r in mine):.0f}",
                *(f"{sum(map(bool, flags))} of {len(mine)}" for flags in ([r["exploded"] for r in mine],)),
                f"{sum(r['diverged_at'] is not None for r in mine)} of {len(mine)}",
                f"{sum(r['dead'] for r in mine)} of {len(mine)}",
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
            f"({seeds}, those that stayed finite); `drift` is the change of the "
            f"log-normalizer from step {_DRIFT_FROM} to the end.",
            f"`exploded`: a score beyond {_EXPLODED:g} nats either way, or the loss not finite; `not finite`: the "
            f"loss; `dead`: scores of all pairs within {_DEAD} nats of each other at the end.",
            f"Reduced against the paper: {grid.note}." if grid.note else "Settings: the paper's.",
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
