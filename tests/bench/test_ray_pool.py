"""A grid on a Ray cluster: a real one of a head and two workers, all of them processes of this machine."""

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

from lightning_mi.bench import local_pool as pool
from lightning_mi.bench import ray_pool as ray_cluster
from lightning_mi.bench import run as main
from lightning_mi.bench.grid import Cell, Grid, Interrupted
from lightning_mi.bench.progress_table import Display
from lightning_mi.bench.ray_pool import Progress, run_cells, train_on_worker, unpack
from lightning_mi.bench.recorder import FIELDS
from lightning_mi.bench.results import CURVES, load_curves
from lightning_mi.bench.train import instantiate
from lightning_mi.cli import main as cli
from lightning_mi.exceptions import CellFailedError, RayClusterError
from tests.bench.test_run import tiny_grid
from tests.helpers.paths import ROOT

STORE = 80_000_000  # bytes, about the least that Ray takes


def ignore(*args: Any) -> None:
    pass


class InThisProcess:
    """A `Progress` that is called as an actor is."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.report = self

    def remote(self, index: int, fraction: float) -> "InThisProcess":
        self.answer: Future[bool] = Future()
        self.answer.set_result(self.progress.report(index, fraction))
        return self

    def future(self) -> Future[bool]:
        return self.answer


@pytest.fixture(autouse=True)
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also restores what `train_on_worker` sets in its process."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")


def connect_fails(address: str, folder: Path) -> str:
    with pytest.raises(RayClusterError) as failure:
        run_cells(tiny_grid().cells, folder, address, 0.0, ignore, ignore)
    return str(failure.value)


def test_what_a_worker_returns_unpacks_to_the_files_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "worker"))
    (tmp_path / "worker").mkdir()
    cell, actor = tiny_grid().cells[0], InThisProcess()
    packed = train_on_worker(actor, 3, cell, 0.0, ray_cluster.__version__)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not list((tmp_path / "worker").iterdir())
    assert list(actor.progress.take()) == [3]
    assert actor.progress.take() == {}
    unpack(packed, tmp_path / "results", cell)
    curves = load_curves(tmp_path / "results", cell)
    assert curves is not None
    assert curves["value"].shape == (40,)
    assert list((tmp_path / "results" / "tensorboard" / cell.name).glob("events*"))


def test_a_run_that_has_gpus_keeps_those_that_ray_gave_it() -> None:
    train_on_worker(InThisProcess(), 0, tiny_grid().cells[0], 1.0, ray_cluster.__version__)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_worker_stops_when_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cell, actor = tiny_grid().cells[0], InThisProcess()

    def begin(*args: Any) -> Any:
        actor.progress.stop()
        return instantiate(*args)

    monkeypatch.setattr("lightning_mi.bench.train.instantiate", begin)
    with pytest.raises(Interrupted):
        train_on_worker(actor, 0, cell, 0.0, ray_cluster.__version__)
    assert train_on_worker(actor, 1, cell, 0.0, ray_cluster.__version__) == b""
    assert not list(tmp_path.iterdir())


def test_a_worker_goes_on_without_the_actor_that_it_reports_to() -> None:
    lost: Future[bool] = Future()
    lost.set_exception(RuntimeError("the actor died"))
    assert not ray_cluster._says_stop(lost)
    assert not ray_cluster._says_stop(Future())


def test_a_node_with_another_version_of_the_package_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"this node has lightning_mi \S+, the grid was started with 9\.9"):
        train_on_worker(InThisProcess(), 0, tiny_grid().cells[0], 0.0, "9.9")


def test_without_ray_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["bench", "onehot", "--ray", "auto", "--output", str(tmp_path)]) == 2
    assert "pip install 'lightning-mi[ray]'" in capsys.readouterr().err


def test_a_finished_grid_needs_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    cell = tiny_grid().cells[0]
    unpack(train_on_worker(InThisProcess(), 0, cell, 0.0, ray_cluster.__version__), tmp_path, cell)
    finished: list[Cell] = []
    run_cells([cell], tmp_path, "auto", 0.0, ignore, lambda cell, curves: finished.append(cell))
    assert finished == [cell]


def test_an_address_that_is_none_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'lightning-mi[ray]'")
    assert "cannot connect to a Ray cluster at nonsense" in connect_fails("nonsense", tmp_path)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_is_an_error_and_not_a_wait(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'lightning-mi[ray]'")
    monkeypatch.setattr(ray_cluster, "_PATIENCE", 3.0)
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"{scheme}127.0.0.1:{deaf.getsockname()[1]}"
        assert f"at {address}: no answer within 3 s" in connect_fails(address, tmp_path)
    assert time.monotonic() - start < 10


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'lightning-mi[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("workers")))  # where runs have their folders
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
    display = Display(grid, console)
    for cell in grid.cells:
        curves = load_curves(folder, cell)
        assert curves is not None
        display.finished(cell, curves)
    with console.capture() as text:
        console.print(display.table())
    return text.get()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray 2.54 leaves files of nodes open
def test_a_cluster_gives_the_results_of_local_processes(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = tiny_grid(losses=("DV", "NWJ"))
    here, there = tmp_path / "here", tmp_path / "there"
    pool.run_cells(grid.cells, here, 2, ignore, ignore)
    monkeypatch.setattr(main, "load_grid", lambda *args, **kwargs: grid)
    monkeypatch.setattr(main, "_report", lambda grid, output: [])
    assert cli.main(["bench", "onehot", "--ray", cluster.address, "--output", str(there)]) == 0
    assert table(grid, there) == table(grid, here)
    for cell in grid.cells:
        one, other = load_curves(here, cell), load_curves(there, cell)
        assert one is not None
        assert other is not None
        for name in FIELDS:
            np.testing.assert_array_equal(one[name], other[name])
        assert list((there / "tensorboard" / cell.name).glob("events*"))
    assert folders_of_workers() == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray 2.54 leaves files of nodes open
def test_the_run_of_a_lost_node_is_done_again(cluster: Any, tmp_path: Path) -> None:
    grid = tiny_grid(steps=3000)
    fractions: dict[str, float] = {}
    again: list[Cell] = []

    def lose_a_node(cell: Cell, fraction: float) -> None:
        if fraction < fractions.get(cell.name, 0.0):
            again.append(cell)
        fractions[cell.name] = fraction
        if len(cluster.worker_nodes) == 2 and len(fractions) == 2 and min(fractions.values()) > 0.1:  # one on each node
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    finished: dict[str, dict[str, Any]] = {}
    try:
        run_cells(
            grid.cells,
            tmp_path,
            cluster.address,
            0.0,
            lose_a_node,
            lambda cell, curves: finished.update({cell.name: curves}),
        )
    finally:
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    assert len(again) == 1
    assert {name: len(curves["value"]) for name, curves in finished.items()} == {c.name: 3000 for c in grid.cells}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray 2.54 leaves files of nodes open
def test_a_training_that_raises_ends_the_grid_with_its_name(cluster: Any, tmp_path: Path) -> None:
    grid = tiny_grid()
    grid.cells[1].config["data"]["init_args"]["batch_size"] = 1
    with pytest.raises(CellFailedError, match=f"(?s){grid.cells[1].name} failed: .*batch_size=1"):
        run_cells(grid.cells, tmp_path, cluster.address, 0.0, ignore, ignore)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray 2.54 leaves files of nodes open
def test_ctrl_c_stops_the_workers_and_the_grid_goes_on_from_there(cluster: Any, tmp_path: Path) -> None:
    short, long = tiny_grid().cells[0], tiny_grid(steps=3000).cells[1]
    finished: list[str] = []

    def finish(cell: Cell, curves: dict[str, Any]) -> None:
        finished.append(cell.name)

    def interrupt(cell: Cell, fraction: float) -> None:
        if finished:
            raise KeyboardInterrupt

    left = folders_of_workers()  # by a node that was killed
    with pytest.raises(KeyboardInterrupt):
        run_cells([short, long], tmp_path, cluster.address, 0.0, interrupt, finish)
    assert folders_of_workers() == left
    assert not (tmp_path / long.name).exists()
    before = (tmp_path / short.name / CURVES).stat().st_mtime_ns
    run_cells([short, long], tmp_path, cluster.address, 0.0, ignore, finish)
    assert finished == [short.name, short.name, long.name]
    assert (tmp_path / short.name / CURVES).stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray 2.54 leaves files of nodes open
def test_more_gpus_than_a_node_has_is_an_error_and_not_a_wait(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(RayClusterError, match="needs a node with 1 CPU and 2 GPUs; the cluster's nodes have"):
        run_cells(tiny_grid().cells, tmp_path, cluster.address, 2.0, ignore, ignore)
