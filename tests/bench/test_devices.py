"""Trainings on several devices, and the GPUs that worker processes see."""

import json
import os
import queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mi.bench import local_pool, run
from lightning_mi.bench.cells import Interrupted
from lightning_mi.bench.dispatch import run_cell
from lightning_mi.bench.gpus import gpus_of_worker, max_parallel_runs, visible_gpus
from lightning_mi.bench.grid import Cell, load_grid
from lightning_mi.bench.recorder import FIELDS
from lightning_mi.bench.results import CURVES, load_curves
from lightning_mi.bench.torchrun import train_on_devices
from tests.helpers.grids import ignore, tiny_grid

STEPS = 30


def cell_on(devices: int, steps: int = STEPS) -> Cell:
    cell = load_grid("gaussian", "quick", losses=["DV"], devices=devices).cells[-1]
    cell.config["data"]["init_args"]["steps_per_mi"] = steps // 5
    cell.config["trainer"] |= {"accelerator": "cpu", "precision": "64-true"}
    return cell


@pytest.fixture
def empty_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_two_devices_record_the_curves_of_one(tmp_path: Path) -> None:
    recorded = []
    for devices in (1, 2):
        cell, fractions = cell_on(devices), []  # type: ignore[var-annotated]
        run_cell(tmp_path, cell, fractions.append)
        assert fractions
        assert all(0 < fraction <= 1 for fraction in fractions)
        curves = load_curves(tmp_path, cell)
        assert curves is not None
        recorded.append(curves)
    for name in FIELDS:
        assert len(recorded[0][name]) == STEPS
        np.testing.assert_allclose(recorded[1][name], recorded[0][name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_error_of_a_rank_reaches_the_driver(tmp_path: Path) -> None:
    cell = cell_on(1)
    cell.config["model"]["init_args"]["regularizer"] = {
        "class_path": "lightning_mi.regularizers.Squared",
        "init_args": {"weight": -1.0},
    }
    with pytest.raises(RuntimeError, match=r"(?s)on 1 device\(s\) failed: rank 0 raised ValueError: .*weight=-1"):
        train_on_devices(tmp_path, cell, 1, ignore, lambda: False)


def test_crash_before_training_shows_stderr(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)failed: .*torch"):
        train_on_devices(tmp_path, cell_on(1), -1, ignore, lambda: False)


@pytest.mark.slow
def test_stopped_training_ends_without_temporary_files(tmp_path: Path, empty_temporary_folder: Path) -> None:
    cell = cell_on(1, steps=1_000_000)
    files_during_training: list[Path] = []
    fractions: list[float] = []

    def stop() -> bool:
        files_during_training.extend(empty_temporary_folder.iterdir())
        return bool(fractions)

    with pytest.raises(Interrupted):
        train_on_devices(tmp_path, cell, 1, fractions.append, stop)
    assert load_curves(tmp_path, cell) is None
    assert files_during_training == []  # so that a killed driver leaves none


def test_training_stops_before_a_rank_has_reported(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train_on_devices(tmp_path, cell_on(1), 1, lambda _: pytest.fail("trained"), lambda: True)


@pytest.mark.parametrize(("worker", "per_run", "expected"), [(1, 0, "b"), (5, 0.5, "b"), (2, 2, "ab"), (1, 3, "abc")])
def test_workers_share_the_gpus_round_robin(worker: int, per_run: float, expected: str) -> None:
    assert gpus_of_worker(worker, per_run, list("abcd")) == list(expected)
    assert gpus_of_worker(worker, 0, []) == []


def test_number_of_parallel_runs_fills_the_gpus() -> None:
    assert [max_parallel_runs(n, ["0", "1", "2", "3"]) for n in (0.25, 1, 2, 3)] == [16, 4, 2, 1]


def test_visible_gpus_are_those_of_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5,3")
    assert visible_gpus() == ["GPU-5", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert visible_gpus() == ["0", "1"]


def test_worker_trains_on_its_gpus_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process, because coverage does not see spawned processes."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(local_pool, "end_after", ignore)  # this process is no worker
    numbers: queue.Queue[int] = queue.Queue()
    numbers.put(1)
    messages: queue.Queue[tuple[int, float]] = queue.Queue()
    threads = torch.get_num_threads()
    local_pool._start_worker(ignore, messages, numbers, 2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    cell = tiny_grid().cells[0]
    local_pool._run(7, tmp_path, cell)
    torch.set_num_threads(threads)
    reports: list[Any] = list(messages.queue)
    assert {index for index, _ in reports} == {7}
    assert json.loads(str(np.load(tmp_path / cell.name / CURVES)["meta"]))["digest"] == cell.digest


def test_more_gpus_than_this_machine_has_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert run.run("onehot", "quick", output=tmp_path, seeds=[0], losses=["DV"], gpus_per_run=2) == 2
    assert "Got --gpus-per-run 2: this machine has 1 visible GPUs" in capsys.readouterr().err
