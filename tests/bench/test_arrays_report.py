"""Tables and figures of the benchmark of arrays, against numbers computed by hand."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest

from lightning_mi.bench.arrays.cell import ArrayCell
from lightning_mi.bench.cells import Grid
from lightning_mi.bench.reports.arrays import report, run_row, summary
from lightning_mi.bench.results import write_curves

NAN = math.nan


def cell(task: str, method: str, seed: int, samples: int = 100) -> ArrayCell:
    config = {"task": task, "method": method, "seed": seed, "samples": samples}
    return ArrayCell(seed, config, task=task, method=method, samples=samples)


def result(mi: float, lower: float | None = None, upper: float | None = None, **facts: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"true_mi": 1.0, "p_value": None, "findings": [], "cpu_seconds": 2.0, "failure": ""}
    return found | {"mi": mi, "lower": lower, "upper": upper} | facts


RUNS = [
    (cell("a", "estimate-quick", 0), result(0.9, 0.8, findings=["heavy_tails", "heavy_tails"], cpu_seconds=1.0)),
    (cell("a", "estimate-quick", 1), result(1.3, 1.1, findings=["heavy_tails", "near_ceiling"], cpu_seconds=4.0)),
    (cell("b", "estimate-quick", 0), result(0.6, 0.5, 1.2, cpu_seconds=3.0)),
    (cell("a", "peer", 0), result(1.5)),
    (cell("a", "peer", 1), result(NAN, failure="exit status 1", cpu_seconds=NAN)),
]


def written(folder: Path, runs: list[tuple[ArrayCell, dict[str, Any]]], **options: Any) -> str:
    for item, facts in runs:
        write_curves(folder, item, {}, **facts)
    paths = report(Grid("arrays", "quick", "", "arrays", [item for item, _ in runs], **options), folder)
    assert all(path.is_file() for path in paths)
    assert len(set(paths)) == len(paths)
    return (folder / "table.md").read_text()


def test_summary_has_errors_coverage_and_median_time() -> None:
    estimated, peer = summary([run_row(*run) for run in RUNS])
    assert estimated["runs"] == 3
    assert estimated["failed"] == 0
    assert estimated["mean_absolute_error"] == pytest.approx((0.1 + 0.3 + 0.4) / 3)
    assert estimated["common_error"] == pytest.approx(0.1)  # only task a, seed 0 has an estimate of the peer
    assert estimated["lower"] == (2, 3)
    assert estimated["interval"] == (1, 1)
    assert estimated["cpu_seconds"] == 3.0
    assert (peer["runs"], peer["failed"], peer["common_runs"]) == (2, 1, 1)
    assert peer["mean_absolute_error"] == pytest.approx(0.5)
    assert peer["lower"] == peer["interval"] == (0, 0)


def test_table_shows_the_numbers(tmp_path: Path) -> None:
    lines = written(tmp_path, RUNS).splitlines()
    assert "| estimate-quick | 100 | 3 | 0 | 0.267 | 0.100 (1) | 2 of 3 | 1 of 1 | 3.00 |" in lines
    assert "| peer | 100 | 2 | 1 | 0.500 | 0.500 (1) | - | - | 2.00 |" in lines
    assert "| a | 1.000 | +0.100 ± 0.283 | +0.500 |" in lines
    assert "| b | 1.000 | -0.400 | - |" in lines
    assert "| a | 1.000 | heavy_tails 2, near_ceiling 1 |" in lines
    assert "- a, peer, seed 1: exit status 1" in lines
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["error"][:6] for row in rows[:3]] == ["-0.099", "0.3000", "-0.4"]
    assert rows[0]["upper"] == ""


def test_method_without_any_estimate_has_no_mean(tmp_path: Path) -> None:
    failed = [(cell("a", "peer", 0), result(NAN, failure="gone", cpu_seconds=NAN)), RUNS[0]]
    lines = written(tmp_path, failed).splitlines()
    assert "| peer | 100 | 1 | 1 | - | - (1) | - | - | - |" in lines
    assert "| a | 1.000 | failed | -0.100 |" in lines


def test_several_sizes_have_a_table_each_and_a_figure_of_the_error(tmp_path: Path) -> None:
    runs = [(cell("a", "cca", 0, samples), result(1 + 10 / samples)) for samples in (500, 2000)]
    text = written(tmp_path, runs)
    assert "## Errors with 2,000 samples" in text
    assert "| cca | 500 | 1 | 0 | 0.020 | 0.020 (1) | - | - | 2.00 |" in text
    assert {path.name for path in tmp_path.glob("*.png")} == {"errors-n500.png", "errors-n2000.png", "sizes.png"}


def test_cells_without_results_are_left_out(tmp_path: Path) -> None:
    for item, facts in RUNS[:1]:
        write_curves(tmp_path, item, {}, **facts)
    report(Grid("arrays", "quick", "", "arrays", [item for item, _ in RUNS]), tmp_path)
    assert "| estimate-quick | 100 | 1 | 0 |" in (tmp_path / "table.md").read_text()
