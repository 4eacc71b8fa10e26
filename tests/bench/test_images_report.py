"""The report of the supervised and contrastive benchmarks."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mi.bench.grid import Cell, load_grid
from lightning_mi.bench.reports import images
from lightning_mi.bench.results import load_curves, write_curves
from lightning_mi.bench.train import train_cell

EPOCH = 10


def write_run(
    folder: Path, cell: Cell, accuracy: float, diverged_at: int | None = None, truth: float = math.log(10)
) -> None:
    rng = np.random.default_rng(cell.seed)
    steps = 40 if diverged_at is None else diverged_at + 1
    columns: dict[str, Any] = {
        name: rng.normal(2.0, 0.1, steps).astype(np.float32)
        for name in ("value", "joint_term", "marginal_term", "log_normalizer", "plug_in")
    }
    columns["true_mi"] = np.full(steps, truth, dtype=np.float32)
    if diverged_at is None:
        columns["map"] = rng.normal(size=(60, 2)).astype(np.float32)
        columns["map_labels"] = np.arange(60) % 10
    else:
        columns["value"][-1] = np.nan
    tested = {"test/mi": 2.1, "test/mi_macro": 2.2, "test/mi_plug_in": 2.05, "probe/accuracy": 0.9}
    tested |= {"test/accuracy": accuracy, "probe/nearest_neighbor": accuracy}
    validated = dict.fromkeys(("val/accuracy", "probe/nearest_neighbor"), accuracy - 0.05)
    facts = {"diverged_at": diverged_at, "steps_an_epoch": EPOCH, "tested": tested, "num_classes": 10}
    facts["validated"] = validated
    write_curves(folder, cell, columns, **facts)


@pytest.mark.parametrize("kind", ["supervised", "contrastive"])
def test_report_writes_rows_table_and_figures(kind: str, tmp_path: Path) -> None:
    grid = load_grid(kind, "quick", losses=["DV", "NWJ"])
    for cell in grid.cells:
        dead = cell.loss == "NWJ" and cell.variant == "original"
        high = 0.9 if cell.variant == "regularized" else 0.8
        write_run(tmp_path, cell, 0.1 if dead else high + 0.001 * cell.seed, diverged_at=5 if dead else None)
    paths = images.report(grid, tmp_path)
    rows = list(csv.DictReader(paths[0].read_text().splitlines()))
    assert len(rows) == len(grid.cells)
    assert {row["collapsed"] for row in rows if row["loss"] == "NWJ" and row["variant"] == "original"} == {"True"}
    assert {row["mi"] for row in rows if row["collapsed"] == "True"} == {"nan"}
    table = paths[1].read_text()
    assert "Truth: 2.3026 nats" in table
    assert "3 of 3" in table  # NWJ original, collapsed
    assert "**0.901 ± 0.001**" in table  # separate intervals
    assert not any("**" in line for line in table.splitlines() if "| DV | original |" in line)
    # Table 1's cell for MINE, which is DV here.
    assert {"supervised": "2.298 ± 0.005", "contrastive": "2.240 ± 0.657"}[kind] in table
    for path in paths[2:]:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 8_000


@pytest.mark.parametrize("kind", ["supervised", "contrastive"])
def test_weight_with_the_best_validation_accuracy_is_chosen(kind: str, tmp_path: Path) -> None:
    grid = load_grid(kind, "weights", losses=["DV"])
    for cell in grid.cells:
        write_run(tmp_path, cell, 0.8 if cell.weight == 0.01 else 0.7)
    paths = images.report(grid, tmp_path)
    rows = list(csv.DictReader(paths[0].read_text().splitlines()))
    accuracies = {row["weight"]: float(row["val_accuracy"]) for row in rows}
    assert accuracies == pytest.approx({"0.1": 0.65, "0.01": 0.75, "0.001": 0.65})
    chosen = [line for line in paths[1].read_text().splitlines() if "(chosen)" in line]
    assert len(chosen) == len({cell.study for cell in grid.cells})
    assert all("| 0.01 (chosen) |" in line for line in chosen)


def test_estimate_is_the_mean_over_the_last_epoch(tmp_path: Path) -> None:
    cell = load_grid("supervised", "quick", losses=["DV"]).cells[0]
    write_run(tmp_path, cell, 0.97)
    curves = load_curves(tmp_path, cell)
    assert curves is not None
    curves["value"][-1] = np.nan  # a batch without a joint pair
    row = images.run_statistics(cell, curves, "supervised")
    last = curves["value"][-EPOCH:-1].astype(np.float64)
    assert row["mi"] == pytest.approx(last.mean(), abs=1e-12)
    assert row["across_batches"] == pytest.approx(last.std(), abs=1e-12)
    assert (row["accuracy"], row["test_mi"], row["collapsed"]) == (0.97, 2.1, False)


def test_batch_without_joint_pairs_records_nan(tmp_path: Path) -> None:
    cell = load_grid("contrastive", "quick", losses=["DV"]).cells[0]
    cell.config["data"]["init_args"].update(batch_size=3, limit_train=90)
    cell.config["trainer"].update(max_epochs=1, callbacks=[])
    train_cell(tmp_path, cell, lambda fraction: None)
    curves = load_curves(tmp_path, cell)
    assert curves is not None
    without = np.isnan(curves["value"])
    assert 0 < without.sum() < len(without)  # three digits are all different more often than not
    for name in ("joint_term", "plug_in"):
        np.testing.assert_array_equal(np.isnan(curves[name]), without)
    assert np.isfinite(curves["log_normalizer"]).all()


def test_accuracy_near_chance_counts_as_collapsed(tmp_path: Path) -> None:
    cell = load_grid("contrastive", "quick", losses=["DV"]).cells[0]
    for accuracy, collapsed in ((0.19, True), (0.21, False), (math.nan, True)):
        write_run(tmp_path, cell, accuracy)
        curves = load_curves(tmp_path, cell)
        assert curves is not None
        assert images.run_statistics(cell, curves, "contrastive")["collapsed"] is collapsed


def test_only_separate_intervals_are_bold() -> None:
    def runs(*accuracies: float) -> list[dict[str, Any]]:
        return [{"accuracy": accuracy} for accuracy in accuracies]

    assert images._separate(runs(0.9, 0.91), [runs(0.8, 0.81)])
    assert not images._separate(runs(0.9, 0.80), [runs(0.8, 0.84)])
    assert not images._separate(runs(0.9, 0.91), [runs(0.8, 0.81), runs(0.95, 0.96)])
    assert not images._separate(runs(0.9), [runs(0.8)])  # a single seed has no interval


def test_report_states_an_unknown_truth(tmp_path: Path) -> None:
    grid = load_grid("contrastive", "quick", losses=["DV"])
    for cell in grid.cells:
        write_run(tmp_path, cell, 0.8, truth=math.nan)
    paths = images.report(grid, tmp_path)
    assert "Truth: unknown." in paths[1].read_text()
    rows = list(csv.DictReader(paths[0].read_text().splitlines()))
    assert {(row["true_mi"], row["collapsed"]) for row in rows} == {("nan", "False")}
