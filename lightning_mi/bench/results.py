"""Write and read the results of finished cells: the curves of a training, or the values of an estimation."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from lightning_mi.bench.cells import AbstractCell, CellT
from lightning_mi.utilities.atomic_files import write_atomically

CURVES = "curves.npz"

Curves = dict[str, Any]  # arrays and metadata of the run, by name
OnProgress = Callable[[Any, float], None]  # a running cell and the fraction of its steps that are done
OnFinished = Callable[[Any, Curves], None]  # Any: a cell of the grid's class
OnFailed = Callable[[Any, str], None]  # a cell and the error that it raised


def load_curves(folder: Path, cell: AbstractCell) -> Curves | None:
    """The curves of a finished run with exactly this configuration, or None."""
    try:
        with (folder / cell.name / CURVES).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            curves = dict(stored)
    except (OSError, ValueError, EOFError, BadZipFile):
        return None
    meta = json.loads(str(curves.pop("meta")))
    return curves | meta if meta["digest"] == cell.digest else None


def write_curves(folder: Path, cell: AbstractCell, curves: Curves, **facts: Any) -> None:
    """Write the curves of a finished run atomically.

    Args:
        folder: Results of the benchmark.
        cell: The cell.
        curves: Arrays by name.
        facts: JSON values, which :func:`load_curves` returns together with the arrays.
    """
    arrays = curves | {"meta": np.array(json.dumps({"digest": cell.digest, **facts}))}
    write_atomically(folder / cell.name / CURVES, lambda file: np.savez_compressed(file, **arrays))


def find_pending(cells: Sequence[CellT], folder: Path, on_finished: OnFinished) -> list[CellT]:
    """The cells without a finished run; ``on_finished`` is called for each of the others."""
    pending = []
    for cell in cells:
        curves = load_curves(folder, cell)
        if curves is None:
            pending.append(cell)
        else:
            on_finished(cell, curves)
    return pending
