"""The benchmark as a user runs it, with trainings of a few steps."""

import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from lightning_mi.bench import local_pool as pool
from lightning_mi.bench import run as main
from lightning_mi.bench.grid import Cell, Grid, Interrupted, load_grid
from lightning_mi.bench.progress_table import Display
from lightning_mi.bench.recorder import FIELDS
from lightning_mi.bench.results import CURVES, load_curves
from lightning_mi.bench.train import instantiate, train_cell
from lightning_mi.data import DatasetNotFoundError
from lightning_mi.utilities.recipe_registry import find_file

OVERRIDES = {"steps": 40}


def tiny_grid(name: str = "onehot", losses: tuple[str, ...] = ("DV",), **data: Any) -> Grid:
    grid = load_grid(name, "quick", losses=list(losses))
    cells = [cell for cell in grid.cells if cell.study in ("drifting", "staircase")]
    for cell in cells:
        cell.config["data"]["init_args"].update(data or {"steps": 40})
    return Grid(grid.name, grid.preset, grid.note, grid.report, cells)


def train(folder: Path, cell: Cell) -> dict[str, Any]:
    fractions: list[float] = []
    train_cell(folder, cell, fractions.append, lambda: False)
    assert fractions
    assert all(0 < fraction <= 1 for fraction in fractions)
    curves = load_curves(folder, cell)
    assert curves is not None
    return curves


def offered_by(name: str) -> list[str | None]:
    offered: list[str | None] = yaml.safe_load(find_file(name, "benchmark").path.read_text()).get("datasets", [None])
    return offered


def grids() -> list[tuple[str, str | None]]:
    names = ("gaussian", "onehot", "supervised", "contrastive")
    return [(name, data) for name in names for data in offered_by(name)]


@pytest.mark.parametrize(("name", "data"), grids())
def test_whatever_callbacks_a_recipe_has_its_grid_can_be_trained(
    name: str, data: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning-mi"])  # the arguments of pytest are no arguments of a training
    cell = load_grid(name, "quick", data=data).cells[0]
    kept = {type(callback).__name__ for callback in instantiate(cell.config, tmp_path, "run").trainer.callbacks}
    assert kept >= ({"Probes"} if name == "contrastive" else set())
    assert not [callback for callback in kept if callback.endswith(("Checkpoint", "ProgressBar", "Layout"))]


def test_a_training_records_every_step_and_writes_tensorboard(tmp_path: Path) -> None:
    cell = tiny_grid().cells[1]
    curves = train(tmp_path, cell)
    assert all(curves[name].shape == (40,) for name in FIELDS)
    np.testing.assert_allclose(curves["value"], curves["joint_term"] - curves["marginal_term"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(curves["true_mi"], np.log(16), rtol=1e-6)
    assert curves["probe"].shape == (2, 16, 16)
    assert curves["diverged_at"] is None
    assert list((tmp_path / "tensorboard" / cell.name).glob("events*"))


def test_the_same_cell_gives_the_same_curves(tmp_path: Path) -> None:
    cell = tiny_grid().cells[0]
    first, second = (train(tmp_path / name, cell) for name in ("a", "b"))
    for name in FIELDS:
        np.testing.assert_array_equal(first[name], second[name])


def test_the_truth_recorded_is_that_of_the_stair(tmp_path: Path) -> None:
    cell = tiny_grid("gaussian", ("InfoNCE",), steps_per_mi=3, batch_size=8).cells[0]
    np.testing.assert_array_equal(train(tmp_path, cell)["true_mi"], np.repeat([2.0, 4.0, 6.0, 8.0, 10.0], 3))


def test_a_training_whose_loss_is_no_longer_finite_ends_and_says_when(tmp_path: Path) -> None:
    cell = tiny_grid(losses=("NWJ",)).cells[0]
    cell.config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 1e4
    curves = train(tmp_path, cell)
    assert curves["diverged_at"] == len(curves["value"]) - 1 < 39
    assert not np.isfinite(curves["value"][-1])
    assert np.isfinite(curves["value"][0])


def test_an_interrupted_training_leaves_no_curves(tmp_path: Path) -> None:
    cell = tiny_grid().cells[0]
    answers = iter([False] * 5 + [True])
    with pytest.raises(Interrupted):
        train_cell(tmp_path, cell, lambda fraction: None, lambda: next(answers))
    assert load_curves(tmp_path, cell) is None
    assert not (tmp_path / cell.name).exists()


def test_curves_of_another_configuration_or_half_a_file_do_not_count(tmp_path: Path) -> None:
    one, other = tiny_grid().cells[0], tiny_grid(steps=41).cells[0]
    train(tmp_path, one)
    assert one.name == other.name
    assert load_curves(tmp_path, other) is None
    path = tmp_path / one.name / CURVES
    path.write_bytes(path.read_bytes()[:-50])
    assert load_curves(tmp_path, one) is None


def test_a_grid_runs_in_processes_and_goes_on_from_finished_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = tiny_grid()
    train(tmp_path, grid.cells[0])
    before = (tmp_path / grid.cells[0].name / CURVES).stat().st_mtime_ns
    monkeypatch.setattr(main, "load_grid", lambda *args, **kwargs: grid)
    monkeypatch.setattr(main, "_report", lambda grid, output: [])
    assert main.run("onehot", "quick", tmp_path, jobs=2, seeds=None, losses=None) == 0
    assert all(load_curves(tmp_path, cell) is not None for cell in grid.cells)
    assert (tmp_path / grid.cells[0].name / CURVES).stat().st_mtime_ns == before


def test_a_failing_training_ends_the_grid_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tiny_grid(num_symbols=8)  # the encoder knows 16, the critic takes 16: symbols are encoded, the probe is not
    grid.cells[:] = grid.cells[:1]
    grid.cells[0].config["data"]["init_args"]["batch_size"] = 1
    monkeypatch.setattr(main, "load_grid", lambda *args, **kwargs: grid)
    assert main.run("onehot", "quick", tmp_path, jobs=1, seeds=None, losses=None) == 1
    error = capsys.readouterr().err
    assert grid.cells[0].name in error
    assert "kept" in error


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_says_how_to_go_on_and_sets_the_status(
    number: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "run_cells", lambda *args: signal.raise_signal(getattr(signal, number)))
    assert main.run("onehot", "quick", tmp_path, jobs=1, seeds=None, losses=None) == status
    assert "same command goes on" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "data"), grids())
def test_the_terminal_table_has_80_columns_and_the_reports_window(name: str, data: str | None, tmp_path: Path) -> None:
    grid = load_grid(name, "paper", data=data)
    console = Console(width=80, record=True, file=io.StringIO())
    display = Display(grid, console)
    steps = np.arange(2000.0)
    curves = dict.fromkeys(("value", "plug_in", "log_normalizer"), -1e9 * steps)
    curves["true_mi"] = np.repeat([2.0, 4.0], [1900, 100])
    for cell in grid.cells:
        display.finished(cell, curves | {"diverged_at": None, "steps_an_epoch": 50})
    with console.capture() as text:
        console.print(display.table())
    length = {"gaussian": 100, "onehot": 500}.get(name, 50)
    assert f"{curves['value'][-length:].mean():.1e}" in text.get()
    assert max(map(len, text.get().splitlines())) <= 80


def test_missing_data_are_answered_with_what_bench_users_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-mi"])
    cell = load_grid("supervised", "quick", data="cifar10").cells[0]
    with pytest.raises(DatasetNotFoundError) as failure:
        train_cell(tmp_path, cell, lambda fraction: None)
    assert "--data" not in str(failure.value)
    assert "ImageDataModule('cifar10', root='data', download=True).prepare_data()" in str(failure.value)


def test_mistakes_in_the_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (("onehott", "quick"), ("onehot", "slow")):
        assert main.run(*arguments, tmp_path, jobs=1, seeds=None, losses=None) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main.run("onehot", "quick", tmp_path / "file" / "folder", jobs=1, seeds=None, losses=None) == 2
    assert "cannot write results into" in capsys.readouterr().err


def test_the_live_display_shows_one_bar_and_the_readings_of_finished_trainings(tmp_path: Path) -> None:
    grid = tiny_grid()
    console = Console(force_terminal=True, width=100, record=True)
    display = Display(grid, console)
    with display.live():
        display.progress(grid.cells[0], 0.5)
        display.finished(grid.cells[1], train(tmp_path, grid.cells[1]))
    console.print(display._render())
    text = console.export_text()
    assert "75%" in text
    assert "drifting-DV-regularized" in text
    assert "1/1" in text
    assert "0/1" in text


def test_a_worker_reports_through_its_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: coverage does not see spawned ones."""
    cell = tiny_grid().cells[0]
    sent: list[tuple[int, float]] = []

    class Messages:
        put = staticmethod(sent.append)

    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(pool, "end_after", lambda wait: None)  # this process is no worker
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    slots = type("Slots", (), {"get": staticmethod(lambda: 0)})()
    pool._start_worker(None, Messages(), slots, 0.0)  # type: ignore[arg-type]
    pool._train(7, tmp_path, cell)
    torch.set_num_threads(threads)
    assert sent
    assert {index for index, _ in sent} == {7}
    assert json.loads(str(np.load(tmp_path / cell.name / CURVES)["meta"]))["digest"] == cell.digest
