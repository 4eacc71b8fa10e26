"""The part of a Ray grid that runs on the cluster: a task that runs one cell, and an actor for progress and stop."""

import io
import os
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, final
from zipfile import ZIP_DEFLATED, ZipFile

from lightning_mi import __version__
from lightning_mi.bench.cells import AbstractCell
from lightning_mi.bench.dispatch import run_cell
from lightning_mi.bench.results import CURVES
from lightning_mi.utilities.atomic_files import write_atomically

_ACTOR_TIMEOUT = 25.0  # seconds to wait for the first reply of the actor


@final
class ProgressActor:
    """Ray actor between the workers and the driver: collects the progress of cells and passes on the stop flag."""

    def __init__(self) -> None:
        self._fractions: dict[int, float] = {}
        self._stopping = False

    def report(self, index: int, fraction: float) -> bool:
        """Store the fraction done of a cell; return True if the cell must stop."""
        self._fractions[index] = fraction
        return self._stopping

    def pop_fractions(self) -> dict[int, float]:
        """The latest fraction of each cell that reported since the last call."""
        fractions, self._fractions = self._fractions, {}
        return fractions

    def stop(self) -> None:
        """Set the stop flag: each worker stops after its next report."""
        self._stopping = True


def run_on_worker(progress: Any, index: int, cell: AbstractCell, gpus: float, version: str) -> bytes:
    """Run a cell in a temporary folder and return the files that it wrote.

    Args:
        progress: Handle of a :class:`ProgressActor`.
        index: Number of the cell, for ``progress``.
        cell: The cell.
        gpus: GPUs that Ray reserved for the task.
        version: Version of lightning_mi in the driver.

    Returns:
        A ZIP archive for :func:`unpack`; empty if the grid was stopped before the cell began.

    Raises:
        RuntimeError: If this node has another version of lightning_mi.
        Interrupted: If the grid was stopped during the run.
    """
    if version != __version__:
        raise RuntimeError(
            f"Got a cell of lightning_mi {version}: this node has lightning_mi {__version__}. Install the same version "
            "on every node."
        )
    if gpus == 0:
        # Ray leaves all GPUs visible to a task that reserved none, so all tasks of a node would use its first GPU.
        # CUDA reads the variable when it starts, which is later: a worker process runs only tasks like this one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    reply: Future[bool] = progress.report.remote(index, 0.0).future()
    wait([reply], timeout=_ACTOR_TIMEOUT)
    if must_stop(reply):
        return b""

    def report(fraction: float) -> None:
        nonlocal reply
        reply = progress.report.remote(index, fraction).future()  # asynchronous: training does not wait

    with TemporaryDirectory(prefix="lightning_mi-") as name:
        folder = Path(name)
        run_cell(folder, cell, report, stopped=lambda: must_stop(reply))
        return _pack(folder)


def must_stop(reply: "Future[bool]") -> bool:
    """True if the actor's reply is the stop flag. A missing reply, or a lost actor, does not stop a training."""
    return reply.done() and reply.exception() is None and reply.result()


def _pack(folder: Path) -> bytes:
    packed = io.BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for path in filter(Path.is_file, folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return packed.getvalue()


def unpack(packed: bytes, folder: Path, cell: AbstractCell) -> None:
    """Write the files of a task under ``folder``. The curves come last, because they mark a cell as finished.

    Args:
        packed: Result of :func:`run_on_worker`.
        folder: Results of the benchmark.
        cell: The cell.
    """
    curves = f"{cell.name}/{CURVES}"
    with ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name != curves])
        write_atomically(folder / curves, partial(_write, archive.read(curves)))


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
