"""Benchmarks of a few steps, and a grid command that a test can interrupt."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.grid import Cell, load_grid
from lightning_mi.bench.results import CURVES, load_curves
from lightning_mi.bench.train import train_cell
from tests.helpers.paths import ROOT

# `bench onehot` on trainings of 300 steps: three seeds, original and regularized.
_PROGRAM = """
import sys
from pathlib import Path
from lightning_mi.bench import run
from lightning_mi.bench.cells import Grid
from lightning_mi.bench.grid import load_grid

if __name__ == "__main__":  # worker processes import this file too
    grid = load_grid("onehot", "quick", losses=["DV"], seeds=[0, 1, 2])
    cells = [cell for cell in grid.cells if cell.study == "drifting"]
    for cell in cells:
        cell.config["data"]["init_args"]["steps"] = 300
    run.load_grid = lambda *args, **kwargs: Grid(grid.name, grid.preset, grid.note, grid.report, cells)
    sys.exit(run.run("onehot", "quick", output=Path(sys.argv[1]), jobs=int(sys.argv[2])))
"""


def ignore(*args: Any) -> None:
    pass


def tiny_grid(name: str = "onehot", losses: tuple[str, ...] = ("DV",), **data: Any) -> Grid[Cell]:
    """Original and regularized cells of 40 steps, or with the given settings of the data module."""
    grid = load_grid(name, "quick", losses=list(losses))
    cells = [cell for cell in grid.cells if cell.study in ("drifting", "staircase")]
    for cell in cells:
        cell.config["data"]["init_args"].update(data or {"steps": 40})
    return Grid(grid.name, grid.preset, grid.note, grid.report, cells)


def train(folder: Path, cell: Cell) -> dict[str, Any]:
    """The curves of a cell that is trained in this process."""
    fractions: list[float] = []
    train_cell(folder, cell, fractions.append)
    assert fractions
    assert all(0 < fraction <= 1 for fraction in fractions)
    curves = load_curves(folder, cell)
    assert curves is not None
    return curves


def start_grid(program: Path, folder: Path, jobs: int) -> "subprocess.Popen[bytes]":
    """Start a grid of six cells in its own session."""
    program.write_text(_PROGRAM)
    command = [sys.executable, str(program), str(folder), str(jobs)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)


def finished_cells(folder: Path) -> dict[str, int]:
    """Finished cells by name, with the time at which their curves were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob(f"*/{CURVES}")}


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def processes_of_session(session: int) -> list[int]:
    """IDs of the running processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session_id, *_ = stat.read_text().rsplit(")", 1)[1].split(maxsplit=4)
        except OSError:
            continue
        if int(session_id) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def kill_session(session: int) -> list[int]:
    """Kill the processes of a session that still run after 10 seconds; return their IDs."""
    wait_until(lambda: not processes_of_session(session), seconds=10.0)
    remaining = processes_of_session(session)
    for pid in remaining:
        os.kill(pid, signal.SIGKILL)
    return remaining
