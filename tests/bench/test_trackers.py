"""Experiment trackers, downloads and manifests of benchmarks."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any, ClassVar

import pytest
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_mi.bench import download, loggers, run
from lightning_mi.bench.arrays.cell import ArrayCell
from lightning_mi.bench.cells import AbstractCell, Grid
from lightning_mi.bench.grid import Cell, load_grid
from lightning_mi.bench.manifest import read_grid, result_folders, write_grid
from lightning_mi.bench.minimize.cell import MinimizeCell
from lightning_mi.bench.plane.cell import PlaneCell
from lightning_mi.bench.sweep.cell import SweepCell
from lightning_mi.cli.main import main
from lightning_mi.data.images import datasets
from lightning_mi.exceptions import GridError
from tests.helpers.grid_commands import TWO_STEPS, run_in_process
from tests.helpers.grids import tiny_grid

RUNS: list["Tracker"] = []


class Tracker(DummyLogger):
    """Records its arguments and what it is sent, in place of W&B and MLflow."""

    def __init__(
        self,
        save_dir: str = "",
        name: str = "",
        project: str = "",
        experiment_name: str = "",
        run_name: str = "",
        tracking_uri: str = "",
        **more: Any,
    ) -> None:
        super().__init__()
        self.settings = {
            "name": name,
            "project": project,
            "experiment_name": experiment_name,
            "run_name": run_name,
        } | more
        self.metrics: list[str] = []
        self.finished = 0
        RUNS.append(self)

    @property
    def experiment(self) -> Any:
        return self

    def finish(self) -> None:
        self.finished += 1

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        assert not self.finished
        self.metrics += metrics


class Client:
    """Replaces the client of MLflow, and its package."""

    experiments: ClassVar[list[str]] = []

    def __init__(self, uri: str) -> None:
        assert uri.startswith("sqlite:////")

    def get_experiment_by_name(self, name: str) -> str | None:
        return name if name in self.experiments else None

    def create_experiment(self, name: str) -> None:
        self.experiments.append(name)


Client.MlflowClient = Client  # type: ignore[attr-defined]  # the stub of the package is the stub of its client


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> list[Tracker]:
    """Runs of a stub in place of both trackers, as if their packages were installed."""
    RUNS.clear()
    monkeypatch.setattr(loggers, "find_spec", lambda name: object())
    monkeypatch.setattr(loggers, "import_module", lambda name: Client)
    Client.experiments.clear()
    monkeypatch.setattr(loggers, "CLASSES", dict.fromkeys(loggers.CLASSES, f"{__name__}.Tracker"))
    return RUNS


def test_runs_of_a_sweep_are_one_group_of_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trackers: list[Tracker]
) -> None:
    ran = run_in_process(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "gaussian", "--sweep=data.mi=2,4", *TWO_STEPS, "--logger", "wandb"]) == 0
    assert [tracker.settings["name"] for tracker in trackers] == ran == ["mi=2-seed0", "mi=4-seed0"]
    for tracker in trackers:
        assert (tracker.settings["project"], tracker.settings["group"]) == ("lightning_mi", "gaussian")
        assert {"train/mi", "val/mi", "test/mi"} <= set(tracker.metrics)
        assert tracker.finished == 1
    assert list(Path("lightning_mi_runs").rglob("events*"))  # TensorBoard, too


def test_runs_of_a_benchmark_are_one_experiment_of_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trackers: list[Tracker]
) -> None:
    ran = run_in_process(monkeypatch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(run, "load_grid", lambda *args, **kwargs: tiny_grid())
    monkeypatch.setattr(run, "_report", lambda grid, output: [])
    assert run.run("onehot", "quick", output=tmp_path, tracker="mlflow") == 0
    assert [tracker.settings["run_name"] for tracker in trackers] == ran
    assert {tracker.settings["experiment_name"] for tracker in trackers} == {"onehot"}
    assert Client.experiments == ["onehot"]  # created once, before the runs
    assert "train/mi" in trackers[0].metrics


@pytest.mark.parametrize("kind", [WandbLogger, MLFlowLogger])
def test_lightnings_loggers_have_the_arguments_that_are_set(kind: type) -> None:
    [tracker] = [name for name, path in loggers.CLASSES.items() if path == f"lightning.pytorch.loggers.{kind.__name__}"]
    config = loggers.logger_config(tracker, "gaussian", "mi=2-seed0", Path("runs"))
    assert set(config["init_args"]) <= set(inspect.signature(kind).parameters)


def test_tracker_does_not_change_which_runs_are_finished() -> None:
    cell = tiny_grid().cells[0]
    tracked = dataclasses.replace(cell, tracker={"tracker": "wandb", "group": "onehot"})
    assert (tracked.digest, tracked.name, tracked) == (cell.digest, cell.name, cell)


def test_download_fetches_each_data_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[tuple[str, str]] = []
    monkeypatch.setattr(datasets, "download_torchvision", lambda name, root: fetched.append((name, root)))
    assert download.download(load_grid("contrastive", "quick", data="fashion_mnist").cells) == ["fashion_mnist"]
    assert fetched == [("fashion_mnist", "data")]


def test_download_on_a_cluster_raises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run("contrastive", "quick", output=tmp_path, data="cifar10", ray="auto", download=True) == 2
    assert "Download on every node first" in capsys.readouterr().err


CELLS: list[AbstractCell] = [
    tiny_grid().cells[0],
    ArrayCell(0, {"a": 1}, task="t", method="m", samples=5),
    MinimizeCell(0, {"a": [1.5, None]}, method="DV", critic_steps=None),
    PlaneCell(1, {"epochs": [1]}),
    SweepCell(2, {"data": {"init_args": {}}}, "gaussian", {"mi": "2"}),
]


def test_grid_is_read_as_it_was_written(tmp_path: Path) -> None:
    grid = Grid("name", "quick", "note", "onehot", CELLS, data="digits", noun="run", reference="it")
    write_grid(tmp_path / "a", grid)
    assert read_grid(tmp_path / "a") == grid
    assert [cell.digest for cell in read_grid(tmp_path / "a").cells] == [cell.digest for cell in CELLS]
    assert result_folders(tmp_path) == [tmp_path / "a"]
    with pytest.raises(GridError, match=r"there is no grid.json in it"):
        read_grid(tmp_path)


def test_every_kind_of_cell_has_a_manifest() -> None:
    assert {type(cell) for cell in CELLS} == set(AbstractCell.__subclasses__()) >= {Cell, SweepCell}
