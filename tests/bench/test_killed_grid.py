"""A grid killed in the middle goes on from what had finished, to the same table."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_mi.bench.results import CURVES
from tests.helpers.paths import ROOT

# One-hot trainings of 300 steps, three seeds, original and regularized, one at a time.
PROGRAM = """
import sys
from pathlib import Path
from lightning_mi.bench import main
from lightning_mi.bench.grid import Grid, load_grid

if __name__ == "__main__":
    grid = load_grid("onehot", "quick", losses=["DV"], seeds=[0, 1, 2])
    cells = [cell for cell in grid.cells if cell.study == "drifting"]
    for cell in cells:
        cell.config["data"]["init_args"]["steps"] = 300
    main.load_grid = lambda *args, **kwargs: Grid(grid.name, grid.preset, grid.note, grid.report, cells)
    sys.exit(main.run("onehot", "quick", Path(sys.argv[1]), jobs=1, seeds=None, losses=None))
"""


def start(program: Path, folder: Path) -> "subprocess.Popen[bytes]":
    root = str(ROOT)
    environment = os.environ | {"PYTHONPATH": root}
    return subprocess.Popen([sys.executable, str(program), str(folder)], env=environment, start_new_session=True)


def finished(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob(f"*/{CURVES}")}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_no_worker_outlives_a_grid_that_a_signal_ended(number: str, status: int, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("jobs=1", "jobs=2"))
    process = start(program, tmp_path / "grid")
    deadline = time.monotonic() + 120
    while not finished(tmp_path / "grid") and time.monotonic() < deadline:
        time.sleep(0.01)
    before = finished(tmp_path / "grid")
    os.kill(process.pid, getattr(signal, number))
    assert process.wait(timeout=10) == status
    deadline = time.monotonic() + 10
    while (left := of_session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
    assert before.items() <= finished(tmp_path / "grid").items()


def of_session(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of, *_ = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
def test_a_killed_grid_repeats_no_finished_training_and_gives_the_same_table(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    assert start(program, tmp_path / "whole").wait(timeout=300) == 0

    process = start(program, tmp_path / "killed")
    deadline = time.monotonic() + 120
    while len(finished(tmp_path / "killed")) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = finished(tmp_path / "killed")
    assert 2 <= len(before) < 6
    assert start(program, tmp_path / "killed").wait(timeout=300) == 0

    after = finished(tmp_path / "killed")
    assert len(after) == 6
    assert {name: after[name] for name in before} == before
    for name in ("table.md", "results.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
