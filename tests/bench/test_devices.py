"""Trainings of a grid on several devices, and which GPUs the processes of this machine see."""

import os
import queue
from pathlib import Path

import numpy as np
import pytest

from lightning_mi.bench import local_pool as pool
from lightning_mi.bench import run as main
from lightning_mi.bench.dispatch import train
from lightning_mi.bench.gpus import gpus_of, jobs_for, visible_gpus
from lightning_mi.bench.grid import Cell, Interrupted, load_grid
from lightning_mi.bench.recorder import FIELDS
from lightning_mi.bench.results import load_curves
from lightning_mi.bench.torchrun import train_on_devices
from lightning_mi.exceptions import GridError

STEPS = 30


def cell_on(devices: int, steps: int = STEPS) -> Cell:
    cell = load_grid("gaussian", "quick", losses=["DV"], devices=devices).cells[-1]
    cell.config["data"]["init_args"]["steps_per_mi"] = steps // 5
    cell.config["trainer"] |= {"accelerator": "cpu", "precision": "64-true"}
    return cell


def test_two_devices_draw_the_curves_of_one(tmp_path: Path) -> None:
    found = []
    for devices in (1, 2):
        cell, fractions = cell_on(devices), []  # type: ignore[var-annotated]
        train(tmp_path, cell, fractions.append, lambda: False)
        assert all(0 < fraction <= 1 for fraction in fractions)
        curves = load_curves(tmp_path, cell)
        assert curves is not None
        found.append(curves)
    for name in FIELDS:
        assert len(found[0][name]) == STEPS
        np.testing.assert_allclose(found[1][name], found[0][name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(GridError, match="3 devices for batches of 32"):
        load_grid("gaussian", "quick", devices=3)


def test_what_a_process_said_when_it_failed_is_in_the_error(tmp_path: Path) -> None:
    cell = cell_on(1)
    cell.config["model"]["init_args"]["regularizer"] = {
        "class_path": "lightning_mi.regularizers.Squared",
        "init_args": {"weight": -1.0},
    }
    with pytest.raises(RuntimeError, match=r"(?s)one of 1 processes failed: ValueError: .*weight=-1"):
        train_on_devices(tmp_path, cell, 1, lambda fraction: None, lambda: False)


def test_a_stopped_grid_ends_the_processes(tmp_path: Path) -> None:
    cell = cell_on(1, steps=1_000_000)
    with pytest.raises(Interrupted):
        train_on_devices(tmp_path, cell, 1, lambda fraction: None, lambda: True)
    assert load_curves(tmp_path, cell) is None


@pytest.mark.parametrize(
    ("slot", "per_run", "expected"),
    [(0, 0, "a"), (1, 0, "b"), (5, 0.5, "b"), (1, 2, "cd"), (2, 2, "ab"), (1, 3, "abc")],
)
def test_processes_take_turns_on_the_gpus(slot: int, per_run: float, expected: str) -> None:
    assert gpus_of(slot, per_run, list("abcd")) == list(expected)


def test_a_machine_without_gpus_has_none_to_give() -> None:
    assert gpus_of(3, 0, []) == []
    with pytest.raises(ValueError, match="machine with 0 visible GPUs"):
        gpus_of(0, 1, [])


def test_gpus_say_how_many_trainings_there_is_room_for() -> None:
    assert [jobs_for(n, ["0", "1", "2", "3"]) for n in (0.25, 1, 2, 3)] == [16, 4, 2, 1]


def test_visible_gpus_are_those_that_a_scheduler_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5,3")
    assert visible_gpus() == ["GPU-5", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert visible_gpus() == ["0", "1"]


def test_a_worker_sees_the_gpus_of_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    slots: queue.Queue[int] = queue.Queue()
    slots.put(1)
    monkeypatch.setattr(pool, "end_after", lambda wait: None)  # this process is no worker
    pool._start_worker(None, None, slots, 2)  # type: ignore[arg-type]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_more_gpus_than_this_machine_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert main.run("onehot", "quick", tmp_path, None, [0], ["DV"], gpus_per_run=2) == 2
    assert "Got --gpus-per-run 2 on a machine with 1 visible GPUs" in capsys.readouterr().err
