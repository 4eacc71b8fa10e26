"""Runs the cells of a grid in parallel processes: finished ones are kept, an interrupt loses only what was running."""

import os
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from lightning_mi.bench.cell import load_curves, train_cells
from lightning_mi.bench.gpus import gpus_of, visible_gpus
from lightning_mi.bench.grid import Cell
from lightning_mi.bench.sharing import shared

# Set by _start_worker in each worker process, which has no other way to be handed a queue and an event.
_worker: dict[str, Any] = {}


class CellFailedError(RuntimeError):
    """A training of the grid raised an error; finished ones are kept."""


def run_cells(
    cells: list[Cell],
    folder: Path,
    jobs: int,
    on_progress: Callable[[Cell, float], None],
    on_finished: Callable[[Cell, dict[str, Any]], None],
    gpus_per_run: float = 0.0,
) -> None:
    """Train those cells that have not finished before; small ones on the same batches in one process, together.

    Args:
        cells: Of a grid.
        folder: Holds a folder for each cell.
        jobs: Processes at a time.
        on_progress: Told the fraction done of a running cell, several times a second.
        on_finished: Told what a cell recorded, at once for those found finished.
        gpus_per_run: GPUs of this machine that a training sees; up to 1, one that it may share with others.

    Raises:
        CellFailedError: A training raised an error.
        KeyboardInterrupt: As the user did. Running cells have stopped, unfinished.
    """
    due = find_due(cells, folder, on_finished)
    if not due:
        return
    context = get_context("spawn")
    messages: Queue[tuple[int, float]] = context.Queue()
    stop = context.Event()
    groups = shared(due, jobs)
    with _executor(min(jobs, len(groups)), context, messages, stop, gpus_per_run) as executor:
        running: dict[Future[None], list[Cell]] = {
            executor.submit(_train, index, folder, group): group for index, group in enumerate(groups)
        }
        while running:
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for index, fraction in _drain(messages):
                for cell in groups[index]:
                    on_progress(cell, fraction)
            for future in finished:
                group = running.pop(future)
                if (error := future.exception()) is not None:
                    names = ", ".join(cell.name for cell in group)
                    raise CellFailedError(f"{names} failed: {type(error).__name__}: {error}") from error
                for cell in group:
                    curves = load_curves(folder, cell)
                    assert curves is not None
                    on_finished(cell, curves)


def find_due(cells: list[Cell], folder: Path, on_finished: Callable[[Cell, dict[str, Any]], None]) -> list[Cell]:
    """Those cells that have not finished before; ``on_finished`` is told what the others recorded."""
    due = []
    for cell in cells:
        curves = load_curves(folder, cell)
        if curves is None:
            due.append(cell)
        else:
            on_finished(cell, curves)
    return due


@contextmanager
def _executor(
    jobs: int, context: Any, messages: "Queue[tuple[int, float]]", stop: Event, gpus_per_run: float
) -> Iterator[ProcessPoolExecutor]:
    slots = context.Queue()
    for slot in range(jobs):
        slots.put(slot)
    arguments = (messages, stop, slots, gpus_per_run)
    executor = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=arguments)
    try:
        yield executor
    except BaseException:
        stop.set()
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()


def _start_worker(messages: "Queue[tuple[int, float]]", stop: Event, slots: "Queue[int]", gpus_per_run: float) -> None:
    import signal

    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which is not yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; workers hear of it through `stop`
    # Read when CUDA starts, which it has not yet.
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus_of(slots.get(), gpus_per_run, visible_gpus()))
    _worker.update(messages=messages, stop=stop)


def _train(index: int, folder: Path, cells: list[Cell]) -> None:
    train_cells(
        folder,
        cells,
        report=lambda fraction: _worker["messages"].put((index, fraction)),
        stopped=_worker["stop"].is_set,
    )


def _drain(messages: "Queue[tuple[int, float]]") -> Iterator[tuple[int, float]]:
    while True:
        try:
            yield messages.get_nowait()
        except queue.Empty:
            return
