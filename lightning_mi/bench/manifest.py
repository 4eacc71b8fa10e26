"""Write and read the grid of a results folder, so that its reports can be written again: `lightning-mi results`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_mi.bench.arrays.cell import ArrayCell
from lightning_mi.bench.cells import AbstractCell, Grid
from lightning_mi.bench.grid import Cell
from lightning_mi.bench.minimize.cell import MinimizeCell
from lightning_mi.bench.plane.cell import PlaneCell
from lightning_mi.bench.sweep.cell import SweepCell
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.atomic_files import write_atomically

MANIFEST = "grid.json"

_KINDS: dict[str, type[AbstractCell]] = {
    kind.__name__: kind for kind in (ArrayCell, Cell, MinimizeCell, PlaneCell, SweepCell)
}


def cell_record(cell: AbstractCell) -> dict[str, Any]:
    """A cell as JSON values.

    Example:
        >>> cell = SweepCell(0, {}, "gaussian", {"mi": "2"})
        >>> read_cell(cell_record(cell)) == cell
        True
    """
    return {"kind": type(cell).__name__, **asdict(cell)}


def read_cell(record: dict[str, Any]) -> AbstractCell:
    """The cell of :func:`cell_record`."""
    arguments = {name: value for name, value in record.items() if name != "kind"}
    return _KINDS[record["kind"]](**arguments)


def write_grid(folder: Path, grid: Grid[Any]) -> None:
    """Write the grid of a results folder atomically; it replaces that of an earlier command."""
    record = {**vars(grid), "cells": [cell_record(cell) for cell in grid.cells]}
    write_atomically(folder / MANIFEST, lambda file: file.write(json.dumps(record).encode()))


def read_grid(folder: Path) -> Grid[Any]:
    """The grid of a results folder.

    Raises:
        GridError: If the folder has no grid, or a grid of another version.
    """
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Grid(**{**record, "cells": [read_cell(cell) for cell in record["cells"]]})
    except FileNotFoundError:
        raise GridError(
            f"Got {folder}: there is no {MANIFEST} in it, so it holds no runs of `lightning-mi bench`. Name the output "
            "folder of a benchmark. For runs of an earlier version, repeat the same `lightning-mi bench` with "
            "--output: finished runs are not repeated."
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise GridError(
            f"Got {path}: it cannot be read ({type(error).__name__}: {error}). Repeat the same `lightning-mi bench`; "
            "finished runs are not repeated."
        ) from error


def result_folders(folder: Path) -> list[Path]:
    """The folder if it has a grid, otherwise its subfolders that have one; itself if none has."""
    if (folder / MANIFEST).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}")) or [folder]
