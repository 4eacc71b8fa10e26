"""Run the cells of a grid on a Ray cluster, one task a cell; the files of each cell return to this machine.

Ray schedules the cells, detects lost workers and repeats their cells. It is imported only if it is used.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_mi import __version__
from lightning_mi._compat.ray_names import preload_ray_shutdown, ray_task_cause
from lightning_mi.bench.cells import AbstractCell
from lightning_mi.bench.ray_connection import check_resources, connected
from lightning_mi.bench.ray_worker import ProgressActor, run_on_worker, unpack
from lightning_mi.bench.results import OnFailed, OnFinished, OnProgress, find_pending, load_curves
from lightning_mi.utilities.interrupts import end_at_once, handle_signals, restore_signals

RETRIES = 3  # repetitions of a cell whose worker was lost: Ray's default for tasks
_STOP_TIMEOUT = 2.0  # seconds that cells have to stop after an interrupt, before Ray kills them


def run_cells(
    cells: Sequence[AbstractCell],
    folder: Path,
    *,
    address: str,
    gpus_per_run: float,
    on_progress: OnProgress,
    on_finished: OnFinished,
    on_failed: OnFailed,
) -> None:
    """Run the cells that have no finished run, in Ray tasks of one CPU.

    The nodes need the same version of ``lightning_mi`` as this process, and no shared file system.

    Args:
        cells: Cells of a grid.
        folder: Results on this machine, with a folder for each cell.
        address: ``HOST:PORT`` of a cluster of which this machine is a node, ``auto`` for the cluster on this machine,
            or ``ray://HOST:PORT`` of a cluster's Ray Client server.
        gpus_per_run: GPUs that Ray reserves for a cell, possibly a fraction. With 0 a cell sees no GPU.
        on_progress: Called several times a second with a running cell and the fraction of its steps done. The fraction
            returns to 0 if the worker was lost and the cell starts again.
        on_finished: Called with each finished cell and its curves, at once for cells that finished earlier.
        on_failed: Called with each cell that raised an error, or lost its worker more than ``RETRIES`` times, and the
            error. The other cells run nevertheless.

    Raises:
        RayClusterError: If Ray is not installed, the cluster does not respond, or no node can run a cell.
        KeyboardInterrupt: After Ctrl-C. The running cells have stopped without results.
    """
    pending = find_pending(cells, folder, on_finished)
    if not pending:
        return
    with connected(address) as ray:
        check_resources(ray, gpus_per_run)
        actor = _start_actor(ray)
        task = ray.remote(num_cpus=1, num_gpus=gpus_per_run, max_retries=RETRIES)(run_on_worker)
        running = {
            task.options(name=cell.name).remote(actor, index, cell, gpus_per_run, __version__): index
            for index, cell in enumerate(pending)
        }
        _preload_shutdown()
        driver = _Driver(ray, actor, pending, folder, on_progress, on_finished, on_failed)
        try:
            driver.collect(running)
        except BaseException:
            # Not ray.cancel: if it coincides with the end of a task, Ray 2.54 ends this process with a failed check.
            actor.stop.remote()
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=_STOP_TIMEOUT)
            driver.save_finished({future: running[future] for future in ended})
            raise


class _FailedTaskError(Exception):
    """A task raised an error, or its worker was lost too often."""


def _preload_shutdown() -> None:
    """Import the modules that ``ray.shutdown`` needs; a signal during these seconds ends this process at once."""
    before = handle_signals(end_at_once)
    preload_ray_shutdown()
    restore_signals(before)


def _start_actor(ray: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On this machine, or on the head node for a Ray Client: elsewhere the actor could be lost with a worker node.
    node = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(node, soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=strategy)(ProgressActor).remote()


@dataclass(frozen=True)
class _Driver:
    """Collects the results of the running tasks. ``running`` maps the future of a task to its index in ``cells``."""

    ray: Any
    actor: Any
    cells: Sequence[AbstractCell]
    folder: Path
    on_progress: OnProgress
    on_finished: OnFinished
    on_failed: OnFailed

    def collect(self, running: dict[Any, int]) -> None:
        """Wait for all tasks, and remove each from ``running`` when its files are written."""
        fractions = self.actor.pop_fractions.remote()
        while running:
            finished, _ = self.ray.wait(list(running), timeout=0.2)
            if self.ray.wait([fractions], timeout=0)[0]:
                for index, fraction in self._get_fractions(fractions).items():
                    if index in running.values():  # a late report of a finished cell would reset its bar
                        self.on_progress(self.cells[index], fraction)
                fractions = self.actor.pop_fractions.remote()
            for future in finished:
                cell = self.cells[running[future]]
                try:
                    packed = self._get_files(future)
                except _FailedTaskError as error:
                    del running[future]
                    self.on_failed(cell, str(error))
                    continue
                unpack(packed, self.folder, cell)
                del running[future]
                curves = load_curves(self.folder, cell)
                assert curves is not None
                self.on_finished(cell, curves)

    def save_finished(self, ended: Mapping[Any, int]) -> None:
        """Write the files of cells that finished before they could be stopped."""
        for future, index in ended.items():
            with suppress(self.ray.exceptions.RayError):  # the cell was stopped
                packed = self.ray.get(future, timeout=_STOP_TIMEOUT)
                if packed and load_curves(self.folder, self.cells[index]) is None:
                    unpack(packed, self.folder, self.cells[index])

    def _get_files(self, future: Any) -> bytes:
        errors = self.ray.exceptions
        try:
            packed: bytes = self.ray.get(future)
        except errors.RayTaskError as error:
            cause = ray_task_cause(error)
            reason = f"{type(cause).__name__}: {cause}"
            if isinstance(cause, errors.RaySystemError):  # the node could not unpickle the task
                reason = (
                    f"{reason.splitlines()[0]}. Install lightning_mi {__version__} on every node, as on this machine"
                )
            raise _FailedTaskError(reason) from error
        except errors.RayError as error:
            reason = f"its worker was lost {RETRIES + 1} times, last with {type(error).__name__}: {error}"
            raise _FailedTaskError(reason) from error
        return packed

    def _get_fractions(self, future: Any) -> dict[int, float]:
        try:
            fractions: dict[int, float] = self.ray.get(future)
        except self.ray.exceptions.RayError:  # the actor was lost with its node; Ray restarts it
            return {}
        return fractions
