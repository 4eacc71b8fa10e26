"""Run the cells of a grid in parallel processes of this machine. An interrupt loses only the running cells."""

import os
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from lightning_mi.bench.cells import AbstractCell
from lightning_mi.bench.dispatch import run_cell
from lightning_mi.bench.gpus import gpus_of_worker, visible_gpus
from lightning_mi.bench.results import OnFailed, OnFinished, OnProgress, find_pending, load_curves
from lightning_mi.utilities.lifeline import end_after

# State of a worker process, set by _start_worker: a queue can reach a worker only through its initializer.
_worker: dict[str, Any] = {}


def run_cells(
    cells: Sequence[AbstractCell],
    folder: Path,
    *,
    jobs: int,
    on_progress: OnProgress,
    on_finished: OnFinished,
    on_failed: OnFailed,
    gpus_per_run: float = 0.0,
) -> None:
    """Run the cells that have no finished run.

    Args:
        cells: Cells of a grid.
        folder: Results, with a folder for each cell.
        jobs: Number of worker processes.
        on_progress: Called several times a second with a running cell and the fraction of its steps done.
        on_finished: Called with each finished cell and its curves, at once for cells that finished earlier.
        on_failed: Called with each cell that raised an error, and the error. The other cells run nevertheless.
        gpus_per_run: Visible GPUs of each training; up to 1, several trainings share one GPU.

    Raises:
        KeyboardInterrupt: After Ctrl-C. The running cells have ended without results.
    """
    pending = find_pending(cells, folder, on_finished)
    if not pending:
        return
    context = get_context("spawn")
    messages: Queue[tuple[int, float]] = context.Queue()
    with _executor(min(jobs, len(pending)), context, messages, gpus_per_run) as executor:
        with _terminal_signals_blocked():
            running: dict[Future[None], AbstractCell] = {
                executor.submit(_run, index, folder, cell): cell for index, cell in enumerate(pending)
            }
        while running:
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for index, fraction in _drain(messages):
                on_progress(pending[index], fraction)
            for future in finished:
                cell = running.pop(future)
                if (error := future.exception()) is not None:
                    on_failed(cell, f"{type(error).__name__}: {error}")
                    continue
                curves = load_curves(folder, cell)
                assert curves is not None
                on_finished(cell, curves)


@contextmanager
def _executor(
    jobs: int, context: Any, messages: "Queue[tuple[int, float]]", gpus_per_run: float
) -> Iterator[ProcessPoolExecutor]:
    numbers = context.Queue()
    for number in range(jobs):
        numbers.put(number)
    # Only this process holds the writing end, so the workers end when it is closed, or when this process dies.
    reader, writer = context.Pipe(duplex=False)
    arguments = (partial(reader.poll, None), messages, numbers, gpus_per_run)
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
    """Context manager: processes started inside ignore Ctrl-C and hang-up, which this process alone handles."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(
    lifeline: Callable[[], object], messages: "Queue[tuple[int, float]]", numbers: "Queue[int]", gpus_per_run: float
) -> None:
    end_after(lifeline)
    # Both variables are read when torch is imported or CUDA starts: later, in the first training.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus_of_worker(numbers.get(), gpus_per_run, visible_gpus()))
    _worker.update(messages=messages)


def _run(index: int, folder: Path, cell: AbstractCell) -> None:
    run_cell(folder, cell, report=lambda fraction: _worker["messages"].put((index, fraction)))


def _drain(messages: "Queue[tuple[int, float]]") -> Iterator[tuple[int, float]]:
    while True:
        try:
            yield messages.get_nowait()
        except queue.Empty:
            return
