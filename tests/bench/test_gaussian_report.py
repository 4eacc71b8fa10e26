"""The report of the Gaussian staircase."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mi.bench.grid import load_grid
from lightning_mi.bench.reports import figures, gaussian
from lightning_mi.bench.results import write_curves


def curves(seed: int, steps: int = 50, diverged_at: int | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.array([2, 4, 6, 8, 10], dtype=np.float32), steps)
    fields = {name: (truth + rng.normal(size=len(truth))).astype(np.float32) for name in ("value", "plug_in")}
    for name in ("joint_term", "marginal_term", "log_normalizer"):
        fields[name] = rng.normal(size=len(truth)).astype(np.float32)
    fields["true_mi"] = truth
    if diverged_at is not None:
        fields = {name: curve[: diverged_at + 1] for name, curve in fields.items()}
    return fields | {"diverged_at": diverged_at}


def test_statistics_are_those_of_single_steps_on_each_level() -> None:
    recorded = curves(0)
    rows = gaussian.level_statistics(recorded, "plug_in")
    assert [row["true_mi"] for row in rows] == [2, 4, 6, 8, 10]
    on_level = recorded["plug_in"][100:150].astype(np.float64)
    assert rows[2]["bias"] == pytest.approx(on_level.mean() - 6, abs=1e-12)
    assert rows[2]["standard_deviation"] == pytest.approx(
        np.sqrt(((on_level - on_level.mean()) ** 2).mean()), abs=1e-12
    )
    assert rows[2]["mse"] == pytest.approx(((on_level - 6) ** 2).mean(), abs=1e-12)
    assert rows[2]["mse"] == pytest.approx(rows[2]["bias"] ** 2 + rows[2]["standard_deviation"] ** 2, abs=1e-12)
    assert rows[2]["steps"] == 50


def test_level_of_divergence_is_missing() -> None:
    assert [row["true_mi"] for row in gaussian.level_statistics(curves(0, diverged_at=120), "value")] == [2, 4]


def test_infinite_estimate_gives_infinite_error() -> None:
    recorded = curves(0)
    recorded["value"][3] = -np.inf
    assert gaussian.level_statistics(recorded, "value")[0]["mse"] == np.inf


def test_report_writes_rows_table_and_figure(tmp_path: Path) -> None:
    grid = load_grid("gaussian", "quick", losses=["DV", "NWJ"])
    for index, cell in enumerate(grid.cells):
        recorded = curves(index, diverged_at=120 if (cell.loss, cell.variant) == ("NWJ", "original") else None)
        write_curves(tmp_path, cell, recorded, diverged_at=recorded.pop("diverged_at"))
    paths = gaussian.report(grid, tmp_path)
    assert [path.name for path in paths] == ["results.csv", "table.md", "staircase.png"]
    rows = list(csv.DictReader(paths[0].read_text().splitlines()))
    assert len(rows) == 2 * (5 + 5 + 2 + 5)
    table = paths[1].read_text()
    assert "NWJ-original-seed0 at step 120" in table
    # Values of Choi and Lee for MINE, which is DV here, at 6 nats: bias 0.32, variance 7.16, error 7.27
    assert "| DV | original | per batch, published as MINE | -0.15 / 0.35 / 0.14 | -0.24 / 0.52 / 0.33 " in table
    assert " | 0.32 / 2.68 / 7.27 |" in table
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert paths[2].stat().st_size > 20_000


def test_figure_draws_plug_in_of_normalized_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[str]] = {}

    def record(figure: Any, axes: Any, path: Path, title: str) -> None:
        drawn.update({panel.get_title(): panel.get_legend_handles_labels()[1] for panel in axes})

    monkeypatch.setattr(figures, "legend_and_save", record)
    grid = load_grid("gaussian", "quick", losses=["DV", "NWJ"])
    figures.staircase_figure([(cell, curves(i)) for i, cell in enumerate(grid.cells)], tmp_path / "staircase.png")
    read = {loss: [label for label in labels if label.endswith("plug-in")] for loss, labels in drawn.items()}
    assert read == {"DV": ["regularized, plug-in"], "NWJ": ["original, plug-in", "regularized, plug-in"]}
