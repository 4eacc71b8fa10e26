"""The report of the one-hot toy."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mi.bench.grid import load_grid
from lightning_mi.bench.reports import onehot
from lightning_mi.bench.results import write_curves

TRUTH = float(np.log(16))


def curves(steps: int = 1500, slope: float = 0.0, scale: float = 1.0, diverged_at: int | None = None) -> dict[str, Any]:
    """Terms that drift by ``slope`` nats a step, and scores of joint pairs ``scale`` above all others."""
    step = np.arange(steps if diverged_at is None else diverged_at + 1)
    normalizer = (slope * step).astype(np.float32)
    value = np.full(len(step), TRUTH, dtype=np.float32)
    scores = np.tile(scale * np.eye(16, dtype=np.float32), (len(step) // 20 + 1, 1, 1))
    if diverged_at is not None:
        value[-1] = np.nan
    return {
        "value": value,
        "joint_term": value + normalizer,
        "marginal_term": normalizer,
        "log_normalizer": normalizer,
        "plug_in": value + normalizer,
        "true_mi": np.full(len(step), TRUTH, dtype=np.float32),
        "probe": scores,
        "diverged_at": diverged_at,
    }


def test_drift_is_the_change_of_log_normalizer_after_step_1000() -> None:
    found = onehot.run_statistics(curves(steps=3000, slope=-0.001))
    assert found["drift"] == pytest.approx(-2.0, abs=1e-4)
    assert found["value"] == pytest.approx(TRUTH, abs=1e-5)
    assert not found["exploded"]
    assert not found["dead"]


def test_large_scores_and_nonfinite_losses_count_as_exploded() -> None:
    assert not onehot.run_statistics(curves(scale=49.0))["exploded"]
    assert onehot.run_statistics(curves(scale=51.0))["exploded"]
    diverged = onehot.run_statistics(curves(diverged_at=300))
    assert diverged["exploded"]
    assert np.isnan(diverged["value"])


def test_equal_scores_count_as_a_dead_critic() -> None:
    assert onehot.run_statistics(curves(scale=0.05))["dead"]


def test_report_writes_rows_table_and_figures(tmp_path: Path) -> None:
    grid = load_grid("onehot", "quick")
    for cell in grid.cells:
        original = cell.variant == "original"
        recorded = curves(slope=-0.001 * original, diverged_at=300 if original and cell.study == "explosion" else None)
        write_curves(tmp_path, cell, recorded, diverged_at=recorded.pop("diverged_at"))
    paths = onehot.report(grid, tmp_path)
    assert {path.name for path in paths} == {
        *("results.csv", "table.md", "targets.png"),
        *(f"{study}-{kind}.png" for study in ("drifting", "explosion") for kind in ("terms", "scores")),
    }
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert len(rows) == len(grid.cells)
    assert sum(row["exploded"] == "True" for row in rows) == 2
    assert "| explosion | NWJ | original | 0 | - |" in (tmp_path / "table.md").read_text()
    for path in paths:
        assert path.stat().st_size > 500
