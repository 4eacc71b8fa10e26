"""Grids of `lightning-mi bench` that run in this process: no worker processes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lightning_mi.bench import run
from lightning_mi.bench.cells import AbstractCell
from lightning_mi.bench.dispatch import run_cell
from lightning_mi.bench.results import find_pending, load_curves
from tests.helpers.grids import ignore

# Settings of the recipe `gaussian` for a training of two steps.
TWO_STEPS = [
    "--sweep=data.steps_per_mi=2",
    "--sweep=data.batch_size=8",
    "--sweep=data.val_batches=2",
    "--sweep=data.test_batches=2",
    "--sweep=data.dim=2",
    "--sweep=model.critic.hidden=[4]",
    "--sweep=trainer.callbacks=null",
    "--sweep=trainer.log_every_n_steps=1",
]


def run_in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the cells of grids one after the other in this process; the names of those that were run, as they run."""
    names: list[str] = []

    def run_cells(cells: Sequence[AbstractCell], folder: Path, **options: Any) -> None:
        for cell in find_pending(cells, folder, options["on_finished"]):
            names.append(cell.name)
            run_cell(folder, cell, ignore)
            curves = load_curves(folder, cell)
            assert curves is not None
            options["on_finished"](cell, curves)

    monkeypatch.setattr(run, "run_cells", run_cells)
    monkeypatch.setattr("sys.argv", ["lightning-mi"])  # LightningCLI warns about the arguments of pytest
    return names
