"""Run one cell of a grid: a training in this process or by torchrun, or a measurement."""

from collections.abc import Callable
from pathlib import Path

from lightning_mi.bench.arrays.cell import ArrayCell
from lightning_mi.bench.cells import AbstractCell
from lightning_mi.bench.grid import Cell
from lightning_mi.bench.minimize.cell import MinimizeCell
from lightning_mi.bench.plane.cell import PlaneCell
from lightning_mi.bench.sweep.cell import SweepCell
from lightning_mi.bench.torchrun import train_on_devices


def run_cell(
    folder: Path, cell: AbstractCell, report: Callable[[float], None], stopped: Callable[[], bool] = lambda: False
) -> None:
    """Run a cell, and write its results atomically under ``folder``. A training uses the devices of its configuration.

    Args:
        folder: Results of the benchmark.
        cell: The cell.
        report: Called a few times a second with the fraction of the steps done; for an estimation, with 0 at its start.
        stopped: Called as often; the run stops once it returns True. An estimation or an audit in this process does not
            stop.

    Raises:
        Interrupted: If ``stopped`` returned True.
    """
    if isinstance(cell, ArrayCell):
        from lightning_mi.bench.arrays.measure import measure_cell  # imports torch: seconds

        measure_cell(folder, cell, report, stopped)
        return
    if isinstance(cell, MinimizeCell):
        from lightning_mi.bench.minimize.measure import measure_cell as measure_training

        measure_training(folder, cell, report, stopped)
        return
    if isinstance(cell, PlaneCell):
        from lightning_mi.bench.plane.measure import measure_cell as measure_layers

        measure_layers(folder, cell, report, stopped)
        return
    assert isinstance(cell, (Cell, SweepCell))
    devices = cell.config.get("trainer", {}).get("devices", 1)
    if devices != 1:
        train_on_devices(folder, cell, devices, report, stopped)
        return
    if isinstance(cell, SweepCell):
        from lightning_mi.bench.sweep.training import train_point  # imports torch and Lightning: seconds

        train_point(folder, cell, report, stopped)
        return
    from lightning_mi.bench.train import train_cell  # imports torch and Lightning: seconds

    train_cell(folder, cell, report, stopped)
