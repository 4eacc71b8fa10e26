"""Tables and the figure of the benchmark of minimization, against numbers computed by hand."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.minimize.cell import MinimizeCell
from lightning_mi.bench.reports.minimize import report, run_rows, summary
from lightning_mi.bench.results import write_curves


def cell(method: str, steps: int | None, seed: int) -> MinimizeCell:
    return MinimizeCell(seed, {"method": method, "steps": steps, "seed": seed}, method=method, critic_steps=steps)


def result(left: list[float], estimate: list[float], error: float, **facts: Any) -> dict[str, Any]:
    curves = {"mi_nuisance": left, "mi_target": [0.0] * (len(left) - 1) + [3.0], "estimate": estimate}
    curves |= {"head_mse": [1.0] * (len(left) - 1) + [error], "best_mse": [error] * len(left)}
    curves["estimate_before"] = [value - 0.5 for value in estimate]
    other: dict[str, Any] = {"diverged_at": None, "cpu_seconds": 2.0, "audit_mi": None, "audit_lower": None}
    return {name: np.array(values) for name, values in curves.items()} | other | facts


RUNS = [
    (cell("none", None, 0), result([2.0, 2.0, 2.5], [], 0.5)),
    (cell("none", None, 1), result([2.0, 2.0, 2.3], [], 0.4)),
    (cell("CLUB", 5, 0), result([2.0, 1.0, 0.5], [1.5, 1.25], 0.6, audit_mi=0.6, audit_lower=0.4)),
    (cell("CLUB", 5, 1), result([2.0, 1.0, 0.1], [0.5, 0.25], 0.4, audit_mi=0.3, audit_lower=0.2, cpu_seconds=4.0)),
    (cell("CLUB", 1, 2), result([2.0, 1.5], [0.5], 0.4, diverged_at=1)),
]


def written(folder: Path, runs: list[tuple[MinimizeCell, dict[str, Any]]]) -> list[str]:
    for item, values in runs:
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        write_curves(folder, item, arrays, **{name: value for name, value in values.items() if name not in arrays})
    paths = report(Grid("minimize", "quick", "", "minimize", [item for item, _ in runs]), folder)
    assert all(path.is_file() for path in paths)
    return (folder / "table.md").read_text().splitlines()


def test_row_compares_with_the_unpenalized_run_of_its_seed() -> None:
    rows = run_rows(RUNS)
    assert [row["relative_mse"] for row in rows[:4]] == pytest.approx([1.0, 1.0, 1.2, 1.0])
    assert math.isnan(rows[4]["relative_mse"])  # seed 2 has no run without a penalty
    assert [row["below_truth"] for row in rows[2:]] == [0.5, 1.0, 1.0]  # 1.5 < 2.0 and 1.25 > 1.0
    assert rows[2]["estimate"] == pytest.approx(1.375)
    assert rows[2]["estimate_before"] == pytest.approx(0.875)
    assert rows[3]["audit_error"] == pytest.approx(0.2)
    assert rows[0]["audit_error"] is None


def test_summary_has_means_and_ranges_over_seeds() -> None:
    none, five, one = summary(run_rows(RUNS))
    assert (none["runs"], five["runs"], one["runs"], one["diverged"]) == (2, 2, 1, 1)
    assert five["mi_nuisance"] == pytest.approx(0.3)
    assert (five["lowest"], five["highest"]) == (0.1, 0.5)
    assert five["relative_mse"] == pytest.approx(1.1)
    assert five["audit_error"] == pytest.approx(0.15)
    assert five["lower"] == (1, 2)
    assert five["cpu_seconds"] == 3.0
    assert math.isnan(none["estimate"])
    assert none["lower"] == (0, 0)


def test_table_and_results_show_the_numbers(tmp_path: Path) -> None:
    lines = written(tmp_path, RUNS)
    assert "| none | - | 2.400 | 2.300 to 2.500 | 3.000 | 1.000 | - | - | - | - | - | 2.0 |" in lines
    line = "| CLUB | 5 | 0.300 | 0.100 to 0.500 | 3.000 | 1.100 | 0.875 | 0.375 | 75 % | 0.150 | 1 of 2 | 3.0 |"
    assert line in lines
    assert "- CLUB, critic steps 1, seed 2: step 1" in lines
    assert (tmp_path / "mi.png").is_file()
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["critic_steps"] for row in rows] == ["", "", "5", "5", "1"]


def test_grid_without_penalties_has_no_figure(tmp_path: Path) -> None:
    assert written(tmp_path, RUNS[:1])
    assert not (tmp_path / "mi.png").exists()


def test_cells_without_results_are_left_out(tmp_path: Path) -> None:
    written(tmp_path, RUNS[2:3])
    report(Grid("minimize", "quick", "", "minimize", [item for item, _ in RUNS]), tmp_path)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 2
