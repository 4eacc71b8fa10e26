"""A grid on a Ray cluster of a head and two worker nodes, all on this machine."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lightning_mi import __version__
from lightning_mi.bench import local_pool, ray_connection, run
from lightning_mi.bench.arrays.grid import ArrayChoices, load_array_grid
from lightning_mi.bench.cells import Grid, Interrupted
from lightning_mi.bench.grid import Cell
from lightning_mi.bench.progress_table import ProgressTable
from lightning_mi.bench.ray_pool import run_cells
from lightning_mi.bench.ray_worker import ProgressActor, must_stop, run_on_worker, unpack
from lightning_mi.bench.recorder import FIELDS
from lightning_mi.bench.results import CURVES, load_curves
from lightning_mi.bench.train import instantiate
from lightning_mi.cli import main as cli
from lightning_mi.exceptions import RayClusterError
from lightning_mi.utilities.recipe_registry import find_file
from tests.helpers.grids import ignore, tiny_grid
from tests.helpers.paths import ROOT

IGNORED: dict[str, Any] = {"on_progress": ignore, "on_finished": ignore, "on_failed": ignore}
STORE = 80_000_000  # bytes, close to the minimum of Ray


def fail(cell: Cell, error: str) -> None:
    pytest.fail(f"{cell.name} failed: {error}")


def run_on(cluster: Any, cells: list[Cell], folder: Path, **options: Any) -> None:
    given = {"address": cluster.address, "gpus_per_run": 0.0, **IGNORED, "on_failed": fail}
    run_cells(cells, folder, **(given | options))


class LocalActor:
    """A ProgressActor in this process, with the interface of an actor handle."""

    def __init__(self) -> None:
        self.progress = ProgressActor()
        self.report = self

    def remote(self, index: int, fraction: float) -> "LocalActor":
        self.answer: Future[bool] = Future()
        self.answer.set_result(self.progress.report(index, fraction))
        return self

    def future(self) -> Future[bool]:
        return self.answer


@pytest.fixture(autouse=True)
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also restores the variable that `run_on_worker` sets."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")


def connection_error(address: str, folder: Path) -> str:
    with pytest.raises(RayClusterError) as failure:
        run_cells(tiny_grid().cells, folder, address=address, gpus_per_run=0.0, **IGNORED)
    return str(failure.value)


def test_result_of_a_task_unpacks_to_run_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "worker"))
    (tmp_path / "worker").mkdir()
    cell, actor = tiny_grid().cells[0], LocalActor()
    packed = run_on_worker(actor, 3, cell, 0.0, __version__)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not list((tmp_path / "worker").iterdir())
    assert list(actor.progress.pop_fractions()) == [3]
    assert actor.progress.pop_fractions() == {}
    unpack(packed, tmp_path / "results", cell)
    curves = load_curves(tmp_path / "results", cell)
    assert curves is not None
    assert curves["value"].shape == (40,)
    assert list((tmp_path / "results" / "tensorboard" / cell.name).glob("events*"))


def test_result_of_an_estimation_unpacks_too(tmp_path: Path) -> None:
    choices = ArrayChoices(tasks=["1v1-additive-0.1"], methods=["cca"], samples=[60])
    [cell] = load_array_grid(find_file("arrays", "benchmark").path, "quick", choices).cells
    unpack(run_on_worker(LocalActor(), 0, cell, 0.0, __version__), tmp_path, cell)
    result = load_curves(tmp_path, cell)
    assert result is not None
    assert result["true_mi"] == pytest.approx(1.7094, abs=1e-4)


def test_training_keeps_the_gpus_reserved_by_ray() -> None:
    run_on_worker(LocalActor(), 0, tiny_grid().cells[0], 1.0, __version__)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_worker_stops_after_the_stop_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cell, actor = tiny_grid().cells[0], LocalActor()

    def begin(*args: Any, **options: Any) -> Any:
        actor.progress.stop()
        return instantiate(*args, **options)

    monkeypatch.setattr("lightning_mi.bench.train.instantiate", begin)
    with pytest.raises(Interrupted):
        run_on_worker(actor, 0, cell, 0.0, __version__)
    assert run_on_worker(actor, 1, cell, 0.0, __version__) == b""
    assert not list(tmp_path.iterdir())


def test_worker_continues_without_its_actor() -> None:
    lost: Future[bool] = Future()
    lost.set_exception(RuntimeError("the actor died"))
    assert not must_stop(lost)
    assert not must_stop(Future())


def test_node_with_another_version_raises() -> None:
    with pytest.raises(RuntimeError, match=r"Got a cell of lightning_mi 9\.9: this node has"):
        run_on_worker(LocalActor(), 0, tiny_grid().cells[0], 0.0, "9.9")


def test_missing_ray_gives_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["bench", "onehot", "--ray", "auto", "--output", str(tmp_path)]) == 2
    assert "pip install 'lightning-mi[ray]'" in capsys.readouterr().err


def test_finished_grid_needs_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    cell = tiny_grid().cells[0]
    unpack(run_on_worker(LocalActor(), 0, cell, 0.0, __version__), tmp_path, cell)
    finished: list[Cell] = []
    given = IGNORED | {"on_finished": lambda cell, curves: finished.append(cell)}
    run_cells([cell], tmp_path, address="auto", gpus_per_run=0.0, **given)
    assert finished == [cell]


def test_invalid_address_is_in_the_error(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'lightning-mi[ray]'")
    assert "Got --ray nonsense: cannot connect" in connection_error("nonsense", tmp_path)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_silent_cluster_raises_within_the_timeout(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'lightning-mi[ray]'")
    monkeypatch.setattr(ray_connection, "_CONNECT_TIMEOUT", 3.0)
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}127.0.0.1:{silent.getsockname()[1]}"
        assert f"Got --ray {address}: cannot connect to a Ray cluster there: no response within" in connection_error(
            address, tmp_path
        )
    assert time.monotonic() - start < 10


# Ray 2.54 does not close the files of its nodes.
ray_leaves_files_open = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'lightning-mi[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("workers")))  # temporary folders of the trainings
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False},
        )
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=STORE)
        yield cluster
        cluster.shutdown()


def folders_of_workers() -> list[Path]:
    return list(Path(os.environ["TMPDIR"]).glob("lightning_mi-*"))


def table(grid: Grid, folder: Path) -> str:
    console = Console(width=120, record=True, quiet=True)
    progress_table = ProgressTable(grid, console)
    for cell in grid.cells:
        curves = load_curves(folder, cell)
        assert curves is not None
        progress_table.finished(cell, curves)
    with console.capture() as text:
        console.print(progress_table.table())
    return text.get()


@pytest.mark.slow
@ray_leaves_files_open
def test_cluster_gives_the_results_of_local_processes(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = tiny_grid(losses=("DV", "NWJ"))
    here, there = tmp_path / "here", tmp_path / "there"
    local_pool.run_cells(grid.cells, here, jobs=2, **IGNORED)
    monkeypatch.setattr(run, "load_grid", lambda *args, **kwargs: grid)
    monkeypatch.setattr(run, "_report", lambda grid, output: [])
    assert cli.main(["bench", "onehot", "--ray", cluster.address, "--output", str(there)]) == 0
    assert table(grid, there) == table(grid, here)
    for cell in grid.cells:
        local, remote = load_curves(here, cell), load_curves(there, cell)
        assert local is not None
        assert remote is not None
        for name in FIELDS:
            np.testing.assert_array_equal(local[name], remote[name])
        assert list((there / "tensorboard" / cell.name).glob("events*"))
    assert folders_of_workers() == []


@pytest.mark.slow
@ray_leaves_files_open
def test_training_of_a_lost_node_is_repeated(cluster: Any, tmp_path: Path) -> None:
    grid = tiny_grid(steps=3000)
    fractions: dict[str, float] = {}
    repeated: list[Cell] = []

    def lose_a_node(cell: Cell, fraction: float) -> None:
        if fraction < fractions.get(cell.name, 0.0):
            repeated.append(cell)
        fractions[cell.name] = fraction
        if len(cluster.worker_nodes) == 2 and len(fractions) == 2 and min(fractions.values()) > 0.1:  # one on each node
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    finished: dict[str, dict[str, Any]] = {}
    try:
        run_on(
            cluster,
            grid.cells,
            tmp_path,
            on_progress=lose_a_node,
            on_finished=lambda cell, curves: finished.update({cell.name: curves}),
        )
    finally:
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    assert len(repeated) == 1
    assert {name: len(curves["value"]) for name, curves in finished.items()} == {c.name: 3000 for c in grid.cells}


@pytest.mark.slow
@ray_leaves_files_open
def test_other_trainings_run_after_one_failed(cluster: Any, tmp_path: Path) -> None:
    grid = tiny_grid()
    failing, other = grid.cells[0], grid.cells[1]
    failing.config["data"]["init_args"]["batch_size"] = 1
    failures: dict[str, str] = {}
    run_on(cluster, [failing, other], tmp_path, on_failed=lambda cell, error: failures.update({cell.name: error}))
    assert list(failures) == [failing.name]
    assert "batch_size=1" in failures[failing.name]
    assert load_curves(tmp_path, other) is not None


@pytest.mark.slow
@ray_leaves_files_open
def test_ctrl_c_stops_the_workers_and_the_grid_resumes(cluster: Any, tmp_path: Path) -> None:
    short, long = tiny_grid().cells[0], tiny_grid(steps=3000).cells[1]
    finished: list[str] = []

    def finish(cell: Cell, curves: dict[str, Any]) -> None:
        finished.append(cell.name)

    def interrupt(cell: Cell, fraction: float) -> None:
        if finished:
            raise KeyboardInterrupt

    left = folders_of_workers()  # by a node that was killed
    with pytest.raises(KeyboardInterrupt):
        run_on(cluster, [short, long], tmp_path, on_progress=interrupt, on_finished=finish)
    assert folders_of_workers() == left
    assert not (tmp_path / long.name).exists()
    before = (tmp_path / short.name / CURVES).stat().st_mtime_ns
    run_on(cluster, [short, long], tmp_path, on_finished=finish)
    assert finished == [short.name, short.name, long.name]
    assert (tmp_path / short.name / CURVES).stat().st_mtime_ns == before


@pytest.mark.slow
@ray_leaves_files_open
def test_more_gpus_than_a_node_has_raises(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(RayClusterError, match=r"Got --gpus-per-run 2: .* and the nodes have"):
        run_on(cluster, tiny_grid().cells, tmp_path, gpus_per_run=2.0)
