"""Curves of a finished training: write and read them."""

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from lightning_mi.bench.grid import Cell
from lightning_mi.utilities.atomic_files import write_atomically

CURVES = "curves.npz"


def load_curves(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """What a finished run of exactly this cell recorded, or None if there is none."""
    try:
        with (folder / cell.name / CURVES).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            curves = dict(stored)
    except (OSError, ValueError, EOFError, BadZipFile):
        return None
    meta = json.loads(str(curves.pop("meta")))
    return curves | meta if meta["digest"] == cell.digest else None


def write_curves(folder: Path, cell: Cell, curves: dict[str, Any], **facts: Any) -> None:
    """Write the curves of a finished run atomically, with facts about it that :func:`load_curves` returns beside them.

    Args:
        folder: The benchmark's results.
        cell: What was trained.
        curves: Arrays by name.
        facts: Anything that JSON can hold.
    """
    arrays = curves | {"meta": np.array(json.dumps({"digest": cell.digest, **facts}))}
    write_atomically(folder / cell.name / CURVES, lambda file: np.savez_compressed(file, **arrays))
