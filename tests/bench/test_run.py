"""`lightning-mi bench` with trainings of a few steps."""

import io
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lightning_mi.bench import local_pool, run
from lightning_mi.bench.cells import Interrupted
from lightning_mi.bench.grid import load_grid
from lightning_mi.bench.progress_table import ProgressTable
from lightning_mi.bench.recorder import FIELDS
from lightning_mi.bench.results import CURVES, load_curves
from lightning_mi.bench.train import instantiate, train_cell
from lightning_mi.data import DatasetNotFoundError
from tests.helpers.grids import ignore, tiny_grid, train


@pytest.mark.parametrize(
    ("name", "data", "expected_files"),
    [
        ("gaussian", None, set()),
        ("onehot", None, set()),
        ("supervised", "digits", set()),  # checkpoint callbacks
        ("contrastive", "cifar10", {"Probes"}),
    ],
)
def test_grid_drops_callbacks_that_it_replaces(
    name: str, data: str | None, expected_files: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning-mi"])  # LightningCLI warns about the arguments of pytest
    cell = load_grid(name, "quick", data=data).cells[0]
    found = {type(callback).__name__ for callback in instantiate(cell.config, tmp_path, "run").trainer.callbacks}
    assert found >= expected_files
    assert not [callback for callback in found if callback.endswith(("Checkpoint", "ProgressBar", "Layout"))]


def test_training_records_every_step_reproducibly(tmp_path: Path) -> None:
    cell = tiny_grid().cells[1]
    curves, repeated = (train(tmp_path / name, cell) for name in ("a", "b"))
    for name in FIELDS:
        assert curves[name].shape == (40,)
        np.testing.assert_array_equal(curves[name], repeated[name])
    np.testing.assert_allclose(curves["value"], curves["joint_term"] - curves["marginal_term"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(curves["true_mi"], np.log(16), rtol=1e-6)
    assert curves["probe"].shape == (2, 16, 16)
    assert curves["diverged_at"] is None
    assert list((tmp_path / "a" / "tensorboard" / cell.name).glob("events*"))


def test_recorded_truth_is_that_of_the_level(tmp_path: Path) -> None:
    cell = tiny_grid("gaussian", ("InfoNCE",), steps_per_mi=3, batch_size=8).cells[0]
    np.testing.assert_array_equal(train(tmp_path, cell)["true_mi"], np.repeat([2.0, 4.0, 6.0, 8.0, 10.0], 3))


def test_nonfinite_loss_ends_the_training_and_is_recorded(tmp_path: Path) -> None:
    cell = tiny_grid(losses=("NWJ",)).cells[0]
    cell.config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 1e4
    curves = train(tmp_path, cell)
    assert curves["diverged_at"] == len(curves["value"]) - 1 < 39
    assert not np.isfinite(curves["value"][-1])
    assert np.isfinite(curves["value"][0])


def test_interrupted_training_leaves_no_curves(tmp_path: Path) -> None:
    cell = tiny_grid().cells[0]
    answers = iter([False] * 5 + [True])
    with pytest.raises(Interrupted):
        train_cell(tmp_path, cell, ignore, lambda: next(answers))
    assert not (tmp_path / cell.name).exists()


def test_curves_of_another_configuration_or_damaged_ones_are_ignored(tmp_path: Path) -> None:
    cell, other = tiny_grid().cells[0], tiny_grid(steps=41).cells[0]
    train(tmp_path, cell)
    assert cell.name == other.name
    assert load_curves(tmp_path, other) is None
    path = tmp_path / cell.name / CURVES
    path.write_bytes(path.read_bytes()[:-50])
    assert load_curves(tmp_path, cell) is None


def test_grid_trains_only_pending_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = tiny_grid()
    train(tmp_path, grid.cells[0])
    before = (tmp_path / grid.cells[0].name / CURVES).stat().st_mtime_ns
    monkeypatch.setattr(run, "load_grid", lambda *args, **kwargs: grid)
    monkeypatch.setattr(run, "_report", lambda grid, output: [])
    assert run.run("onehot", "quick", output=tmp_path, jobs=1) == 0
    assert all(load_curves(tmp_path, cell) is not None for cell in grid.cells)
    assert (tmp_path / grid.cells[0].name / CURVES).stat().st_mtime_ns == before
    monkeypatch.setattr(local_pool, "_executor", None)  # a finished grid starts no process
    assert run.run("onehot", "quick", output=tmp_path) == 0


def test_other_trainings_run_after_one_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tiny_grid()
    failing, other = grid.cells[0], grid.cells[1]
    grid.cells[:] = [failing, other]
    failing.config["data"]["init_args"]["batch_size"] = 1
    monkeypatch.setattr(run, "load_grid", lambda *args, **kwargs: grid)
    monkeypatch.setattr(run, "_report", lambda grid, output: [output / "table.md"])
    assert run.run("onehot", "quick", output=tmp_path, jobs=1) == 1
    output, error = capsys.readouterr()
    assert f"1/2 {failing.name} failed: ValueError: Got batch_size=1" in output
    assert f"wrote {tmp_path / 'table.md'}" in output
    assert f"{failing.name} failed: ValueError: Got batch_size=1" in error
    assert "Other trainings are saved" in error
    assert load_curves(tmp_path, other) is not None


def test_error_of_all_trainings_is_printed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tiny_grid()
    for cell in grid.cells:
        cell.config["data"]["init_args"]["batch_size"] = 1
    monkeypatch.setattr(run, "load_grid", lambda *args, **kwargs: grid)
    assert run.run("onehot", "quick", output=tmp_path, jobs=1) == 1
    error = capsys.readouterr().err
    assert error.count("Got batch_size=1") == 1
    assert all(cell.name in error for cell in grid.cells)
    assert not (tmp_path / "table.md").exists()


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signal_sets_the_exit_status_and_explains_resume(
    number: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "run_cells", lambda *args, **kwargs: signal.raise_signal(getattr(signal, number)))
    assert run.run("onehot", "quick", output=tmp_path, jobs=1) == status
    assert "same command resumes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["gaussian", "onehot", "supervised", "contrastive"])
def test_terminal_table_has_80_columns_and_the_reports_window(name: str) -> None:
    grid = load_grid(name, "paper")
    console = Console(width=80, record=True, file=io.StringIO())
    table = ProgressTable(grid, console)
    steps = np.arange(2000.0)
    curves = dict.fromkeys(("value", "plug_in", "log_normalizer"), -1e9 * steps)
    curves["true_mi"] = np.repeat([2.0, 4.0], [1900, 100])
    for cell in grid.cells:
        table.finished(cell, curves | {"diverged_at": None, "steps_an_epoch": 50})
    with console.capture() as text:
        console.print(table.table())
    length = {"gaussian": 100, "onehot": 500}.get(name, 50)
    assert f"{curves['value'][-length:].mean():.1e}" in text.get()
    assert max(map(len, text.get().splitlines())) <= 80


def test_live_table_shows_one_bar_and_finished_trainings() -> None:
    grid = tiny_grid(losses=("DV", "NWJ"))
    console = Console(force_terminal=True, width=100, record=True)
    table = ProgressTable(grid, console)
    curves: dict[str, Any] = dict.fromkeys(("value", "plug_in", "log_normalizer"), np.full(40, 1.25))
    with table.live():
        table.progress(grid.cells[0], 0.5)
        table.finished(grid.cells[1], curves | {"diverged_at": None})
    table.finished(grid.cells[2], curves | {"diverged_at": 7})
    console.print(table._render())
    text = console.export_text()
    for shown in ("62%", "drifting-DV-regularized", "1.25", "1/1", "0/1"):
        assert shown in text


def test_missing_data_set_raises_with_the_download_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-mi"])
    cell = load_grid("supervised", "quick", data="cifar10").cells[0]
    with pytest.raises(DatasetNotFoundError) as failure:
        train_cell(tmp_path, cell, ignore)
    assert "--data" not in str(failure.value)
    assert "ImageDataModule('cifar10', root='data', download=True).prepare_data()" in str(failure.value)


@pytest.mark.parametrize("arguments", [("onehott", "quick"), ("onehot", "slow")])
def test_invalid_arguments_give_one_line(
    arguments: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.run(*arguments, output=tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1
