"""Read columns of csv, parquet, npy and npz files."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lightning_mi.exceptions import EstimateInputError


class Variables(NamedTuple):
    """What the files hold: x, y, optionally z and the group of each sample."""

    x: NDArray[Any]
    y: NDArray[Any]
    z: NDArray[Any] | None = None
    groups: NDArray[Any] | None = None


def read_variables(
    files: Sequence[Path], x: str | None, y: str | None, given: str | None = None, groups: str | None = None
) -> Variables:
    """Read x, y and optionally z from two or three npy files, or from columns of one file.

    Args:
        files: Two or three npy files, or one csv, parquet or npz file.
        x: Columns, separated by commas, or the name of an array in an npz file.
        y: The same for y.
        given: The same for z.
        groups: Column of one file with the group of each sample.

    Raises:
        EstimateInputError: A file cannot be read, or has no such column.
    """
    if len(files) > 1:
        if given is not None:
            raise EstimateInputError(
                f"Got --given {given} with {len(files)} files: it names columns of one file. Give z.npy as third file."
            )
        if groups is not None:
            raise EstimateInputError(
                f"Got --groups {groups} with {len(files)} files: it names a column of one file. Save all arrays in one "
                "npz file."
            )
        return Variables(*(_load_npy(path) for path in files))
    [path] = files
    if x is None or y is None:
        raise EstimateInputError(f"Got one file, {path}, without --x and --y: name the columns, such as --x a,b --y c.")
    table = _read_table(path)
    z, group = (None if name is None else _select(table, name, path) for name in (given, groups))
    return Variables(_select(table, x, path), _select(table, y, path), z, group)


def read_columns(path: Path, names: str | None) -> dict[str, NDArray[Any]]:
    """Read columns of a csv or parquet file, arrays of an npz file, or all columns of an npy file of shape (n, D).

    Args:
        path: The file.
        names: Columns, separated by commas; all by default. The columns of an npy file are called 0 to D - 1.

    Raises:
        EstimateInputError: The file cannot be read, or has no such column.
    """
    if path.suffix.lower() == ".npy":
        array = _load_npy(path)
        if array.ndim != 2:
            raise EstimateInputError(f"Got {path} of shape {array.shape}: pairs of columns need an (n, D) array.")
        table = {str(index): column for index, column in enumerate(array.T)}
    else:
        table = _read_table(path)
    return table if names is None else {name: _find(table, name, path) for name in _split(names)}


def _read_table(path: Path) -> dict[str, NDArray[Any]]:
    readers = {".csv": _read_csv, ".npz": _read_npz, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise EstimateInputError(f"Got {path}: give one csv, parquet or npz file, or npy files: x, y and optionally z.")
    if not path.is_file():
        raise EstimateInputError(f"Got {path}: there is no such file.")
    return reader(path)


def _read_csv(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, "csv", error) from None
    if len(rows) < 2:
        raise EstimateInputError(f"Got {path} with {len(rows)} lines: the first line names the columns, data follow.")
    header, *body = ([field.strip() for field in row] for row in rows)
    if len(header) == 1 and (separator := next((mark for mark in ";\t|" if mark in header[0]), None)):
        raise EstimateInputError(f"Got {path} with fields separated by {separator!r}: the separator must be a comma.")
    _check_names(header, path)
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise EstimateInputError(f"Got {path}: line {number} has {len(row)} fields, and the header {len(header)}.")
    columns = zip(*body, strict=True)
    return {name: _to_numbers(values) for name, values in zip(header, columns, strict=True)}


def _check_names(names: Sequence[str], path: Path) -> None:
    if repeated := [name for name in names if names.count(name) > 1]:
        raise EstimateInputError(f"Got {path} with two columns called {repeated[0]!r}: rename or drop one.")


def _to_numbers(values: Sequence[str]) -> NDArray[Any]:
    """Integers or floats if all fields are numbers, an empty field is NaN; otherwise text."""
    for convert in (int, lambda text: float(text) if text else float("nan")):
        try:
            return np.array([convert(text) for text in values])
        except ValueError:
            continue
    return np.array(values)


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise _unreadable(path, "npz", error) from None


def _read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise EstimateInputError(f"Got {path}: parquet files need pyarrow. Run: pip install pyarrow.") from None
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, "parquet", error) from None
    _check_names(table.column_names, path)
    return {name: table.column(name).to_numpy() for name in table.column_names}


def _unreadable(path: Path, form: str, error: Exception) -> EstimateInputError:
    """The error of a file that NumPy or pyarrow rejects. NumPy proposes to unpickle, which runs code from the file."""
    reason = "it is no array of numbers or text" if "allow_pickle" in str(error) else str(error).rstrip(".")
    return EstimateInputError(f"Got {path}: it cannot be read as a file of type {form}: {reason}.")


def _load_npy(path: Path) -> NDArray[Any]:
    if path.suffix.lower() != ".npy":
        raise EstimateInputError(f"Got {path} as one of several files: these are npy arrays, x, y and optionally z.")
    if not path.is_file():
        raise EstimateInputError(f"Got {path}: there is no such file.")
    try:
        with path.open("rb") as file:  # not np.load, which opens an npz file of this name too
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(path, "npy", error) from None
    return array


def _select(table: dict[str, NDArray[Any]], names: str, path: Path) -> NDArray[Any]:
    columns = [_find(table, name, path) for name in _split(names)]
    if len(columns) == 1:
        return columns[0]
    return np.column_stack(columns)


def _split(names: str) -> list[str]:
    return [part.strip() for part in names.split(",")]


def _find(table: dict[str, NDArray[Any]], name: str, path: Path) -> NDArray[Any]:
    if name not in table:
        raise EstimateInputError(f"Got column {name!r}: {path} has {', '.join(table)}.")
    return table[name]
