"""Train one cell of a grid: in this process on one device, by torchrun on several."""

from collections.abc import Callable
from pathlib import Path

from lightning_mi.bench.grid import Cell
from lightning_mi.bench.torchrun import train_on_devices


def train(
    folder: Path, cell: Cell, report: Callable[[float], None], stopped: Callable[[], bool] = lambda: False
) -> None:
    """Train a cell on the devices of its configuration, and write its curves atomically under ``folder``.

    Args:
        folder: Results of the benchmark.
        cell: The training.
        report: Called a few times a second with the fraction of the steps done.
        stopped: Called as often; the training stops once it returns True.

    Raises:
        Interrupted: If ``stopped`` returned True.
    """
    devices = cell.config.get("trainer", {}).get("devices", 1)
    if devices != 1:
        train_on_devices(folder, cell, devices, report, stopped)
        return
    from lightning_mi.bench.train import train_cell  # imports torch and Lightning: seconds

    train_cell(folder, cell, report, stopped)
