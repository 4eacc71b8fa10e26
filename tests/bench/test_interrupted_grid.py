"""A grid that was interrupted resumes after its finished cells, with the same table."""

import os
import signal
from pathlib import Path

import pytest

from tests.helpers.grids import finished_cells, kill_session, start_grid, wait_until


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_no_worker_outlives_an_interrupted_grid(number: str, status: int, tmp_path: Path) -> None:
    process = start_grid(tmp_path / "program.py", tmp_path / "grid", jobs=2)
    wait_until(lambda: finished_cells(tmp_path / "grid"))
    before = finished_cells(tmp_path / "grid")
    os.kill(process.pid, getattr(signal, number))
    assert process.wait(timeout=10) == status
    assert not kill_session(process.pid)
    assert before.items() <= finished_cells(tmp_path / "grid").items()


@pytest.mark.slow
def test_resumed_grid_repeats_no_cell_and_writes_the_same_table(tmp_path: Path) -> None:
    assert start_grid(tmp_path / "program.py", tmp_path / "whole", jobs=1).wait(timeout=300) == 0

    process = start_grid(tmp_path / "program.py", tmp_path / "killed", jobs=1)
    wait_until(lambda: len(finished_cells(tmp_path / "killed")) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = finished_cells(tmp_path / "killed")
    assert 2 <= len(before) < 6
    assert start_grid(tmp_path / "program.py", tmp_path / "killed", jobs=1).wait(timeout=300) == 0

    after = finished_cells(tmp_path / "killed")
    assert len(after) == 6
    assert {name: after[name] for name in before} == before
    for name in ("table.md", "results.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
