"""Run one cell of the benchmark of layer readings and write its result."""

import time
from collections.abc import Callable
from pathlib import Path

from lightning_mi.bench.plane.cell import PlaneCell
from lightning_mi.bench.plane.grid import Settings
from lightning_mi.bench.plane.training import read_layers, split_digits
from lightning_mi.bench.results import write_curves
from lightning_mi.bench.worker import quiet_process


def measure_cell(folder: Path, cell: PlaneCell, report: Callable[[float], None], stopped: Callable[[], bool]) -> None:
    """Train the network, and write the readings of its layers and the CPU time under ``folder``.

    Args:
        folder: Results of the benchmark.
        cell: The training.
        report: Called with the fraction of the epochs done.
        stopped: Called at every step and for every layer; the training stops once it returns True.

    Raises:
        Interrupted: If ``stopped`` returned True.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    start = time.process_time()
    settings, epochs = Settings(**cell.config["training"]), cell.config["epochs"]
    with quiet_process(), threadpool_limits(1):
        _, readings = read_layers(split_digits(cell.seed), settings, epochs, cell.seed, report, stopped)
    curves = {"mi": readings[..., 0], "standard_error": readings[..., 1]}
    write_curves(folder, cell, curves, cpu_seconds=time.process_time() - start)
