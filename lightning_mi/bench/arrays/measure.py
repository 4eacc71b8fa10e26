"""Run one cell of the benchmark of arrays and write its result."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from lightning_mi.bench.arrays.cell import ArrayCell
from lightning_mi.bench.arrays.methods import METHODS, Reading
from lightning_mi.bench.arrays.peers import Peer, PeerFailedError, run_peer
from lightning_mi.bench.arrays.tasks import Sample, draw, find_law
from lightning_mi.bench.results import write_curves
from lightning_mi.bench.worker import configure_worker

_WARM_UP = 60  # samples


def measure_cell(folder: Path, cell: ArrayCell, report: Callable[[float], None], stopped: Callable[[], bool]) -> None:
    """Estimate the MI of the cell's samples, and write the reading, the true MI and the CPU time under ``folder``.

    A peer that fails is a result of the grid: its reading is NaN, with the reason.

    Args:
        folder: Results of the benchmark.
        cell: The estimation.
        report: Called with 0 at the start.
        stopped: Called a few times a second while a peer runs.

    Raises:
        Interrupted: If ``stopped`` returned True.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    report(0.0)
    configure_worker()
    law = find_law(cell.task)
    sample = draw(law, cell.samples, cell.seed)
    peer, failure = cell.config["peer"], ""
    with threadpool_limits(1):
        if peer is None:
            reading, seconds = _read(cell.method, sample, cell.seed)
        else:
            try:
                reading, seconds = run_peer(Peer(**peer), sample, cell.seed, folder / cell.name, stopped)
            except PeerFailedError as error:
                reading, seconds, failure = Reading(float("nan")), float("nan"), str(error)
    facts = reading._asdict() | {"true_mi": law.true_mi, "cpu_seconds": seconds, "failure": failure}
    write_curves(folder, cell, {}, **facts)


def _read(method: str, sample: Sample, seed: int) -> tuple[Reading, float]:
    """The reading and its CPU seconds."""
    _warm_up(method)
    start = time.process_time()
    reading = METHODS[method].read(sample, seed)
    return reading, time.process_time() - start


@cache
def _warm_up(method: str) -> None:
    """Import what a method needs, once in a process, so that no cell's time contains it."""
    budget = "estimate-quick" if method.startswith("estimate-") else method
    METHODS[budget].read(draw(find_law("1v1-normal-0.75"), _WARM_UP, 0), 0)
