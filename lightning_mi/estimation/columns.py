"""Columns of a data frame, a mapping of arrays or a 2-D array, alone or in groups."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lightning_mi.estimation.arrays import to_array
from lightning_mi.exceptions import EstimateInputError
from lightning_mi.utilities.checks import describe

Columns = Sequence[Any] | Mapping[str, Any]  # keys of a frame may have any type
_MAX_LISTED = 20  # names in a message


class _Table(NamedTuple):
    keys: list[Any]
    column: Callable[[Any], Any]


def select_columns(frame: Any, columns: Columns | None = None) -> dict[str, Any]:
    """Data by name, each (n,) or (n, D).

    Args:
        frame: A pandas or polars data frame, a mapping of arrays, or an (n, D) array, whose columns are called 0 to
            D - 1.
        columns: Columns to select; or a mapping of names to columns, each a column or a list of columns, which together
            are one variable. By default all.

    Raises:
        EstimateInputError: The frame has no such column, two columns of one name, or no columns.
        TypeError: ``columns`` is a single name.

    Example:
        >>> selected = select_columns(np.zeros((5, 3)), {"position": [0, 1], "speed": 2})
        >>> {name: array.shape for name, array in selected.items()}
        {'position': (5, 2), 'speed': (5,)}
    """
    table = _read_table(frame)
    if columns is None:
        columns = table.keys
    elif isinstance(columns, str | bytes):
        raise TypeError(
            f"Got {describe('columns', columns)}: pass a list of columns, or a mapping of names to columns."
        )
    if isinstance(columns, Mapping):
        return {str(name): _group(table, keys, str(name)) for name, keys in columns.items()}
    names = [str(key) for key in columns]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise EstimateInputError(f"Got the column {repeated[0]!r} twice: rename or drop one, as pairs are named by it.")
    return {name: _column(table, key) for name, key in zip(names, columns, strict=True)}


def _read_table(frame: Any) -> _Table:
    if isinstance(frame, Mapping):
        return _Table(list(frame), lambda key: frame[key])
    if hasattr(frame, "columns") and hasattr(frame, "to_numpy"):  # pandas or polars
        return _Table(list(frame.columns), lambda key: frame[key])
    if hasattr(frame, "collect"):  # polars
        raise EstimateInputError("Got a lazy frame: pass frame.collect().")
    array = to_array(frame, "frame")
    if array.ndim != 2:
        raise EstimateInputError(
            f"Got a frame of shape {array.shape}: pass a data frame, a mapping of arrays or an (n, D) array."
        )
    return _Table(list(range(array.shape[1])), lambda key: array[:, key])


def _column(table: _Table, key: Any) -> Any:
    if key not in table.keys:
        known = ", ".join(map(str, table.keys[:_MAX_LISTED])) + (", ..." if len(table.keys) > _MAX_LISTED else "")
        raise EstimateInputError(f"Got column {key!r}: the frame has {known}.")
    if table.keys.count(key) > 1:
        raise EstimateInputError(f"Got a frame with two columns called {key!r}: rename or drop one.")
    return table.column(key)


def _group(table: _Table, keys: Any, name: str) -> Any:
    if not isinstance(keys, list | tuple):
        return _column(table, keys)
    if not keys:
        raise EstimateInputError(f"Got {name!r} without columns: name at least one.")
    return np.column_stack([to_array(_column(table, key), str(key)) for key in keys])
