"""Tables and the figure of the benchmark of layer readings, against numbers computed by hand."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.plane.cell import LAYERS, METHODS, PlaneCell
from lightning_mi.bench.progress_table import ProgressTable
from lightning_mi.bench.reports.plane import report, run_rows, summary
from lightning_mi.bench.results import write_curves


def cell(seed: int) -> PlaneCell:
    return PlaneCell(seed, {"epochs": [1, 3], "seed": seed})


def readings(plane: float, stored: float, online: float) -> NDArray[np.float64]:
    """(epochs, layers, methods): the converged probe reads 2 everywhere; the others read the given values."""
    return np.broadcast_to([plane, stored, online, 2.0], (2, len(LAYERS), len(METHODS))).copy()


FIRST, SECOND = readings(1.95, 1.75, 0.5), readings(2.15, 1.5, 0.25)
SECOND[1, 2, 0] = 1.875  # seed 1, epoch 3, net.5
ERRORS = readings(0.25, 0.25, 0.25) / 50  # 0.04 of the converged probe
RUNS = [
    (cell(seed), {"mi": mi, "standard_error": ERRORS, "cpu_seconds": seconds})
    for seed, mi, seconds in ((0, FIRST, 20.0), (1, SECOND, 40.0))
]
GRID = Grid("plane", "quick", "", "plane", [item for item, _ in RUNS])


def written(folder: Path, count: int) -> list[str]:
    for item, result in RUNS[:count]:
        arrays = {name: result[name] for name in ("mi", "standard_error")}
        write_curves(folder, item, arrays, cpu_seconds=result["cpu_seconds"])
    assert all(path.is_file() for path in report(GRID, folder))
    return (folder / "table.md").read_text().splitlines()


def test_row_has_the_difference_from_the_converged_probe() -> None:
    rows = run_rows(RUNS)
    assert len(rows) == 2 * 2 * len(LAYERS) * len(METHODS)
    [row] = [row for row in rows if row["difference"] == -0.125]
    assert row == {
        "seed": 1,
        "epoch": 3,
        "layer": "net.5",
        "method": "InformationPlane",
        "mi": 1.875,
        "standard_error": 0.005,
        "difference": -0.125,
    }
    assert {row["difference"] for row in rows if row["method"] == "converged"} == {0.0}


def test_summary_has_the_largest_shortfall_of_each_method() -> None:
    plane, stored, online = summary(run_rows(RUNS))
    assert plane["difference"] == pytest.approx((8 * -0.05 + 7 * 0.15 - 0.125) / 16)
    assert (plane["lowest"]["seed"], plane["lowest"]["epoch"], plane["lowest"]["layer"]) == (1, 3, "net.5")
    assert (plane["below"], plane["readings"]) == (1, 16)
    assert (stored["difference"], stored["below"]) == (-0.375, 16)
    assert online["lowest"]["difference"] == -1.75


def test_tables_and_results_show_the_numbers(tmp_path: Path) -> None:
    lines = written(tmp_path, 2)
    assert "| epoch | layer | converged | standard error | InformationPlane | stored | online |" in lines
    assert "| 1 | net.1 | 2.000 | 0.040 | 2.050 (+0.050) | 1.625 (-0.375) | 0.375 (-1.625) |" in lines
    assert "| InformationPlane | +0.033 | 0.125 | seed 1, epoch 3, net.5 | 1 of 16 |" in lines
    assert any("CPU seconds of a training with all readings: 30 (median)" in line for line in lines)
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 64


def test_method_above_the_converged_probe_has_no_shortfall(tmp_path: Path) -> None:
    write_curves(tmp_path, cell(0), {"mi": readings(2.1, 1.0, 1.0), "standard_error": ERRORS}, cpu_seconds=1.0)
    report(GRID, tmp_path)
    line = "| InformationPlane | +0.100 | 0.000 | seed 0, epoch 1, net.1 | 0 of 8 |"
    assert line in (tmp_path / "table.md").read_text()


def test_cells_without_results_are_left_out(tmp_path: Path) -> None:
    assert any(line.startswith("1 seed (0).") for line in written(tmp_path, 1))
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 33


def test_terminal_shows_the_lowest_difference_of_each_method() -> None:
    console = Console(width=80, file=io.StringIO())
    table = ProgressTable(GRID, console)
    for item, result in RUNS:
        table.finished(item, result)
    with console.capture() as text:
        console.print(table.table())
    shown = text.get()
    assert "-0.09" in shown  # the mean of -0.05 and -0.125
    assert "-1.62" in shown  # the mean of -1.5 and -1.75
    assert max(map(len, shown.splitlines())) <= 80


def test_terminal_counts_readings_that_are_not_finite() -> None:
    table = ProgressTable(GRID, Console(width=80, file=io.StringIO()))
    table.finished(RUNS[0][0], RUNS[0][1] | {"mi": readings(np.nan, 1.0, 1.0)})
    assert [*table.table().columns[-1].cells] == ["1"]
