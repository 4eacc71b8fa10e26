"""Runs the cells of a grid on a Ray cluster, one task a training: its files come back to this machine and are kept.

Ray places the runs, tells lost workers and does their runs again. It is imported only here, and only when asked for.
"""

import io
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, final
from zipfile import ZIP_DEFLATED, ZipFile

from lightning_mi import __version__
from lightning_mi.bench.dispatch import train
from lightning_mi.bench.grid import Cell
from lightning_mi.bench.local_pool import find_due
from lightning_mi.bench.results import CURVES, load_curves
from lightning_mi.exceptions import CellFailedError, RayClusterError
from lightning_mi.utilities.atomic_files import write_atomically
from lightning_mi.utilities.interrupts import end_at_once, handle_signals, restore_signals

RETRIES = 3  # times that a run is done again after its worker was lost; Ray's own default for tasks
_PATIENCE = 25.0  # seconds to connect; Ray itself tries a wrong address for minutes, then ends the process
_FAREWELL = 2.0  # seconds that runs have to stop after an interrupt, before Ray kills them


def run_cells(
    cells: list[Cell],
    folder: Path,
    address: str,
    gpus_per_run: float,
    on_progress: Callable[[Cell, float], None],
    on_finished: Callable[[Cell, dict[str, Any]], None],
) -> None:
    """Train those cells that have not finished before, in Ray tasks of one CPU.

    The nodes need ``lightning_mi`` in the version of this process, and no file system in common with it.

    Args:
        cells: Of a grid.
        folder: Holds a folder for each cell; on this machine.
        address: ``HOST:PORT`` of a cluster that this machine is a node of, ``auto`` for the one that runs on it, or
            ``ray://HOST:PORT`` of a cluster's Ray Client server.
        gpus_per_run: GPUs that Ray sets apart for a run; it may be a fraction. A run that has none sees none.
        on_progress: Told the fraction done of a running cell, several times a second. It falls back to 0 when a worker
            was lost and the cell starts again.
        on_finished: Told what a cell recorded, at once for those found finished.

    Raises:
        RayClusterError: Ray is not installed, or the cluster cannot be reached, or no node has room for a run.
        CellFailedError: A training raised an error, or lost its worker more than ``RETRIES`` times.
        KeyboardInterrupt: As the user did. Running cells have stopped, unfinished.
    """
    due = find_due(cells, folder, on_finished)
    if not due:
        return
    with _connected(address) as ray:
        _require_room(ray, gpus_per_run)
        progress = _start_progress(ray)
        task = ray.remote(num_cpus=1, num_gpus=gpus_per_run, max_retries=RETRIES)(train_on_worker)
        running = {
            task.options(name=cell.name).remote(progress, index, cell, gpus_per_run, __version__): index
            for index, cell in enumerate(due)
        }
        _import_what_shutdown_needs()
        try:
            _gather(ray, due, running, folder, progress, on_progress, on_finished)
        except BaseException:
            # Not by ray.cancel: where it meets the end of a task, Ray 2.54 ends this process with a failed check
            progress.stop.remote()
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=_FAREWELL)
            _keep_finished(ray, due, {future: running[future] for future in ended}, folder)
            raise


def _import_what_shutdown_needs() -> None:
    """Import `ray.dag` while trainings start: it imports torch, for seconds that `ray.shutdown` would need.

    A signal in the middle of it ends this process at once, and Ray the trainings with it.
    """
    before = handle_signals(end_at_once)
    import_module("ray.dag")
    restore_signals(before)


def _start_progress(ray: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()  # this machine, or the head of the cluster if we are none of it
    strategy = NodeAffinitySchedulingStrategy(here, soft=True)  # elsewhere it could be lost with a worker
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=strategy)(Progress).remote()


def _gather(
    ray: Any,
    cells: list[Cell],
    running: dict[Any, int],
    folder: Path,
    progress: Any,
    on_progress: Callable[[Cell, float], None],
    on_finished: Callable[[Cell, dict[str, Any]], None],
) -> None:
    """Empty ``running``, a mapping from a task's future to its cell's place in ``cells``."""
    fractions = progress.take.remote()
    while running:
        finished, _ = ray.wait(list(running), timeout=0.2)
        if ray.wait([fractions], timeout=0)[0]:
            for index, fraction in _fetch_fractions(ray, fractions).items():
                if index in running.values():  # a late word of a finished run would set its bar back
                    on_progress(cells[index], fraction)
            fractions = progress.take.remote()
        for future in finished:
            cell = cells[running[future]]
            unpack(_fetch(ray, future, cell.name), folder, cell)
            del running[future]
            curves = load_curves(folder, cell)
            assert curves is not None
            on_finished(cell, curves)


def _keep_finished(ray: Any, cells: list[Cell], ended: dict[Any, int], folder: Path) -> None:
    """Write the files of trainings that finished while the others stopped."""
    for future, index in ended.items():
        with suppress(ray.exceptions.RayError):  # of a training that stopped
            packed = ray.get(future, timeout=_FAREWELL)
            if packed and load_curves(folder, cells[index]) is None:
                unpack(packed, folder, cells[index])


def _fetch(ray: Any, future: Any, name: str) -> bytes:
    try:
        packed: bytes = ray.get(future)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None) or error
        reason = f"{type(cause).__name__}: {cause}"
        if isinstance(cause, ray.exceptions.RaySystemError):  # the node could not even read what it was to do
            reason = f"{reason.splitlines()[0]}. Every node needs lightning_mi {__version__}, as it is installed here"
        raise CellFailedError(f"{name} failed: {reason}") from error
    except ray.exceptions.RayError as error:
        reason = f"its worker was lost {RETRIES + 1} times, lastly by {type(error).__name__}: {error}"
        raise CellFailedError(f"{name} failed: {reason}") from error
    return packed


def _fetch_fractions(ray: Any, fractions: Any) -> dict[int, float]:
    try:
        taken: dict[int, float] = ray.get(fractions)
    except ray.exceptions.RayError:  # lost with its node, and restarted by Ray: trainings go on without
        return {}
    return taken


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise RayClusterError("--ray needs Ray: pip install 'lightning-mi[ray]'") from error
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    _try_to_connect(options)
    try:
        with warnings.catch_warnings():
            # Older releases tell that GPUs will no longer be hidden from tasks without; train_on_worker hides them
            warnings.simplefilter("ignore", FutureWarning)
            handler = signal.getsignal(signal.SIGTERM)
            ray.init(**options)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray's own would exit with status 15
        yield ray
    finally:
        ray.shutdown()


def _try_to_connect(options: dict[str, Any]) -> None:
    """Connect in a process of its own: against a wrong address, Ray neither gives up nor can be interrupted."""
    program = f"from lightning_mi.utilities.lifeline import end_with_stdin; end_with_stdin(); import ray; ray.init(**{options!r})"
    reader, writer = os.pipe()
    # The attempt ends with its stdin, whose writing end only this process holds.
    with os.fdopen(reader, "rb") as stdin, os.fdopen(writer, "wb"):
        try:
            attempt = subprocess.run(
                [sys.executable, "-c", program],
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            reason = f"no answer within {_PATIENCE:g} s"
        else:
            if attempt.returncode == 0:
                return
            lines = [line for line in attempt.stderr.splitlines() if line.strip()]
            reason = (lines or ["the attempt to connect died"])[-1].rstrip(".")
    raise RayClusterError(
        f"cannot connect to a Ray cluster at {options['address']}: {reason}. `ray status` on one of its nodes tells "
        "whether it runs; from a machine that is not a node, use --ray ray://HOST:10001."
    )


def _require_room(ray: Any, gpus_per_run: float) -> None:
    """Ray would wait for ever for a node that has room."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus_per_run for node in nodes):
        found = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise RayClusterError(
            f"a run needs a node with 1 CPU and {gpus_per_run:g} GPUs; the cluster's nodes have {found}. "
            "Change --gpus-per-run, or add a node to the cluster."
        )


@final
class Progress:
    """How far the running cells are: an actor that workers tell and this process asks; also tells workers to stop."""

    def __init__(self) -> None:
        self._fractions: dict[int, float] = {}
        self._stopping = False

    def report(self, index: int, fraction: float) -> bool:
        """The cells of this number are this far, between 0 and 1. The answer is whether it is to stop."""
        self._fractions[index] = fraction
        return self._stopping

    def take(self) -> dict[int, float]:
        """What was reported since the last time, the latest of each cell."""
        taken, self._fractions = self._fractions, {}
        return taken

    def stop(self) -> None:
        """Have all workers stop: each hears of it when it next reports."""
        self._stopping = True


def train_on_worker(progress: Any, index: int, cell: Cell, gpus: float, version: str) -> bytes:
    """Train a cell in a temporary folder, and return the files that it wrote.

    Args:
        progress: Handle of a ``Progress`` actor.
        index: The cell's number, for ``progress``.
        cell: What to train.
        gpus: That Ray set apart.
        version: Of lightning_mi where the grid was started.

    Returns:
        A ZIP archive, as ``unpack`` takes it. Empty if the grid was stopped before the run began.

    Raises:
        RuntimeError: This node has another version of lightning_mi.
        Interrupted: The grid was stopped during the run.
    """
    if version != __version__:
        raise RuntimeError(f"this node has lightning_mi {__version__}, the grid was started with {version}")
    if gpus == 0:
        # Ray leaves all GPUs visible to a task that asked for none, and all runs of a node would crowd onto its first.
        # Read when CUDA starts, which it has not yet: a worker process serves only tasks like this one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    answer: Future[bool] = progress.report.remote(index, 0.0).future()
    wait([answer], timeout=_PATIENCE)
    if _says_stop(answer):
        return b""

    def report(fraction: float) -> None:
        nonlocal answer
        answer = progress.report.remote(index, fraction).future()  # not waited for

    with TemporaryDirectory(prefix="lightning_mi-") as name:
        folder = Path(name)
        train(folder, cell, report, stopped=lambda: _says_stop(answer))
        packed = io.BytesIO()
        with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
            for path in filter(Path.is_file, folder.rglob("*")):
                archive.write(path, path.relative_to(folder))
        return packed.getvalue()


def _says_stop(answer: Future[bool]) -> bool:
    """An answer that has not come, or never will for the actor was lost, says to go on."""
    return answer.done() and answer.exception() is None and answer.result()


def unpack(packed: bytes, folder: Path, cell: Cell) -> None:
    """Write the files of a task under ``folder``; the curves last, since they mark a cell as finished.

    Args:
        packed: What ``train_on_worker`` returned.
        folder: Of the benchmark's results.
        cell: What was trained.
    """
    curves = f"{cell.name}/{CURVES}"
    with ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name != curves])
        write_atomically(folder / curves, partial(_copy, archive.read(curves)))


def _copy(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
