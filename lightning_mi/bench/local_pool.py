"""Train the cells of a grid in parallel processes. Finished cells are kept; an interrupt loses only running ones."""

import os
import queue
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from lightning_mi.bench.dispatch import train
from lightning_mi.bench.gpus import gpus_of, visible_gpus
from lightning_mi.bench.grid import Cell
from lightning_mi.bench.results import load_curves
from lightning_mi.exceptions import CellFailedError
from lightning_mi.utilities.lifeline import end_after

# Set by _start_worker in each worker process, which has no other way to receive a queue.
_worker: dict[str, Any] = {}


def run_cells(
    cells: list[Cell],
    folder: Path,
    jobs: int,
    on_progress: Callable[[Cell, float], None],
    on_finished: Callable[[Cell, dict[str, Any]], None],
    gpus_per_run: float = 0.0,
) -> None:
    """Train those cells that have not finished before.

    Args:
        cells: Of a grid.
        folder: Holds a folder for each cell.
        jobs: Processes at a time.
        on_progress: Called with the fraction done of a running cell, several times a second.
        on_finished: Called with what a cell recorded, at once for those found finished.
        gpus_per_run: GPUs of this machine that a training sees; up to 1, one that it may share with others.

    Raises:
        CellFailedError: A training raised an error.
        KeyboardInterrupt: As the user did. Running cells have ended, unfinished.
    """
    due = find_due(cells, folder, on_finished)
    if not due:
        return
    context = get_context("spawn")
    messages: Queue[tuple[int, float]] = context.Queue()
    with _executor(min(jobs, len(due)), context, messages, gpus_per_run) as executor:
        with _terminal_signals_blocked():
            running: dict[Future[None], Cell] = {
                executor.submit(_train, index, folder, cell): cell for index, cell in enumerate(due)
            }
        while running:
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for index, fraction in _drain(messages):
                on_progress(due[index], fraction)
            for future in finished:
                cell = running.pop(future)
                if (error := future.exception()) is not None:
                    raise CellFailedError(f"{cell.name} failed: {type(error).__name__}: {error}") from error
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
    jobs: int, context: Any, messages: "Queue[tuple[int, float]]", gpus_per_run: float
) -> Iterator[ProcessPoolExecutor]:
    slots = context.Queue()
    for slot in range(jobs):
        slots.put(slot)
    # Only this process holds the writing end: workers end at once when it is closed, here or by this process's death.
    reader, writer = context.Pipe(duplex=False)
    arguments = (partial(reader.poll, None), messages, slots, gpus_per_run)
    executor = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=arguments)
    try:
        yield executor
    except BaseException:
        writer.close()
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()


@contextmanager
def _terminal_signals_blocked() -> Iterator[None]:
    """Start processes within: a terminal sends Ctrl-C and its closing to all of them, and only this one answers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(
    lifeline: Callable[[], object], messages: "Queue[tuple[int, float]]", slots: "Queue[int]", gpus_per_run: float
) -> None:
    end_after(lifeline)
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which is not yet
    # Read when CUDA starts, which it has not yet.
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus_of(slots.get(), gpus_per_run, visible_gpus()))
    _worker.update(messages=messages)


def _train(index: int, folder: Path, cell: Cell) -> None:
    train(folder, cell, report=lambda fraction: _worker["messages"].put((index, fraction)))


def _drain(messages: "Queue[tuple[int, float]]") -> Iterator[tuple[int, float]]:
    while True:
        try:
            yield messages.get_nowait()
        except queue.Empty:
            return
