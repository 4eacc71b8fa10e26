"""Variables of an estimation: numbers, or labels of a discrete variable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from lightning_mi.estimation.arrays import to_array, to_finite, to_rows
from lightning_mi.estimation.coordinates import ATOM_FRACTION
from lightning_mi.exceptions import EstimateInputError
from lightning_mi.utilities.checks import check_choice

Kind = Literal["continuous", "discrete", "mixed"]
MIN_SAMPLES = 50
_MAX_LABELS = 100
_MAX_LABEL_FRACTION = 0.05  # of n: more distinct values than that are numbers


@final
@dataclass(frozen=True)
class Variable:
    """One of the two variables.

    Attributes:
        name: ``"x"`` or ``"y"``, or the name of the column.
        kind: ``"continuous"``, ``"discrete"``, or ``"mixed"`` for numbers of which some have a positive probability.
        values: (n, D) numbers, of a discrete variable its labels.
        num_classes: The number of labels of a discrete variable, otherwise 0.
        constant: Indices of the columns with a single value.
        categories: (C, D) rows that the labels of a discrete variable stand for, sorted; otherwise None.
    """

    name: str
    kind: Kind
    values: NDArray[np.float64]
    num_classes: int
    constant: tuple[int, ...]
    categories: NDArray[Any] | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) labels 0 to C - 1 of a discrete variable."""
        return self.values[:, 0].astype(np.int64)


def read_variable(data: Any, name: str, discrete: bool | None = None) -> Variable:
    """Convert one argument of :func:`lightning_mi.estimate`.

    Args:
        data: A NumPy array, tensor, pandas or polars column or frame, or list: (n,) or (n, D).
        name: The argument, for messages.
        discrete: Whether the values are labels without an order. By default they are if they are Boolean or
            categories, or numbers of few distinct values.

    Raises:
        EstimateInputError: The data are not numbers, have NaN or infinite values, more than two dimensions, or too
            few rows.

    Example:
        >>> read_variable(np.arange(60) % 3, "y").kind
        'discrete'
    """
    if discrete is None and _has_categories(data):
        discrete = True
    array = to_array(data, name)
    categorical = array.dtype.kind in "OUSb"
    array = to_rows(array, name)
    if categorical and not discrete and array.dtype.kind != "b":
        remedy = (
            "Encode each column of text as numbers, such as one-hot columns."
            if array.shape[1] > 1
            else f"For labels, pass discrete={{'{name}': True}} (on the command line --discrete {name})."
        )
        raise EstimateInputError(f"Got {name} with text or objects: MI is estimated of numbers, or of labels. {remedy}")
    if len(array) < MIN_SAMPLES:
        raise EstimateInputError(f"Got {len(array)} samples of {name}: at least {MIN_SAMPLES} are required.")
    if categorical:
        return _discrete(name, array)
    if array.dtype.kind == "c":
        raise EstimateInputError(f"Got complex numbers as {name}: pass the real and the imaginary part as columns.")
    values = to_finite(array, name)
    constant = tuple(int(column) for column in np.flatnonzero((values == values[0]).all(axis=0)))
    if discrete is None:
        discrete = _num_distinct(values) <= min(_MAX_LABELS, _MAX_LABEL_FRACTION * len(values))
    if discrete:
        return _discrete(name, values, constant)
    kind: Kind = "mixed" if _has_atoms(values) else "continuous"
    return Variable(name, kind, values, 0, constant)


def read_new_values(data: Any, fitted: Variable) -> NDArray[np.float64]:
    """(m, D) values of new samples of a variable; of a discrete variable (m, 1) its labels.

    Args:
        data: As in :func:`read_variable`.
        fitted: The variable of the fit.

    Raises:
        EstimateInputError: The data have another number of columns, NaN or infinite values, or a label that the
            variable of the fit does not have.

    Example:
        >>> fitted = read_variable(np.array(["a", "b"] * 30), "y", discrete=True)
        >>> read_new_values(np.array(["b", "a"]), fitted).ravel()
        array([1., 0.])
    """
    name, array = fitted.name, to_array(data, fitted.name)
    array = to_rows(array, name)
    columns = fitted.values.shape[1] if fitted.categories is None else fitted.categories.shape[1]
    if array.shape[1] != columns:
        raise EstimateInputError(f"Got {name} with {array.shape[1]} columns: the fit had {columns}.")
    if fitted.categories is not None:
        return _new_labels(array, fitted)
    if array.dtype.kind not in "biuf":
        raise EstimateInputError(f"Got {name} of dtype {array.dtype}: the fit had numbers.")
    return to_finite(array, name)


def _discrete(name: str, array: NDArray[Any], constant: tuple[int, ...] = ()) -> Variable:
    if array.dtype.kind == "O":
        missing = np.array([[value is None or value != value for value in row] for row in array])
        if missing.any():
            raise EstimateInputError(
                f"Got {name} with {missing.sum()} labels that are missing, the first in row "
                f"{np.flatnonzero(missing.any(axis=1))[0]}, counted from 0: no row is dropped silently. Drop such "
                "rows in x and y together, or give them a label."
            )
    rows = array.astype(str) if array.dtype.kind == "O" else array
    distinct, labels = np.unique(rows, axis=0, return_inverse=True)
    if len(distinct) > len(array) / 2:
        raise EstimateInputError(
            f"Got {name} as a discrete variable with {len(distinct)} labels for {len(array)} samples: most labels "
            f"occur once, and carry no information. Pass discrete={{'{name}': False}} for numbers."
        )
    values = labels.reshape(-1, 1).astype(np.float64)
    return Variable(name, "discrete", values, len(distinct), constant, distinct)


def _new_labels(array: NDArray[Any], fitted: Variable) -> NDArray[np.float64]:
    """(m, 1) indices of rows in the categories of a discrete variable."""
    assert fitted.categories is not None
    known = fitted.categories
    rows = array.astype(str) if array.dtype.kind == "O" or known.dtype.kind in "US" else array
    distinct, index = np.unique(np.concatenate([known, rows]), axis=0, return_inverse=True)
    label_of = np.full(len(distinct), -1)
    label_of[index.ravel()[: len(known)]] = np.arange(len(known))
    labels = label_of[index.ravel()[len(known) :]]
    if len(unseen := np.flatnonzero(labels < 0)):
        label = rows[unseen[0]].tolist()
        raise EstimateInputError(
            f"Got {fitted.name} with the label {label[0] if len(label) == 1 else label!r} in row {unseen[0]}, which is "
            f"not among the {len(known)} labels of the fit: the critics have no score for it. Drop such rows, or fit "
            "to samples of all labels."
        )
    return labels.reshape(-1, 1).astype(np.float64)


def _has_categories(data: Any) -> bool:
    """Whether the data are a column of categories of pandas or polars."""
    kind = str(getattr(data, "dtype", "")).lower()
    return kind.startswith(("category", "categorical", "enum"))


def read_kinds(discrete: Mapping[str, bool] | None, names: Sequence[str] | None = None) -> dict[str, bool]:
    """Check an argument ``discrete``: whether variables, by name, are labels.

    Args:
        discrete: The argument.
        names: The variables; None leaves their check to the caller.

    Raises:
        TypeError: It is no mapping of names to True or False.
        ValueError: A name is unknown.

    Example:
        >>> read_kinds(["x"])
        Traceback (most recent call last):
        TypeError: Got discrete of type list: pass a mapping of names to True or False, such as {'x': True}.
    """
    kinds: Any = {} if discrete is None else discrete
    if not isinstance(kinds, Mapping) or not all(isinstance(kind, bool | np.bool_) for kind in kinds.values()):
        raise TypeError(
            f"Got discrete of type {type(discrete).__name__}: pass a mapping of names to True or False, such as "
            "{'x': True}."
        )
    for name in kinds:
        if names is not None:
            check_choice("key of discrete", name, names)
    return dict(kinds)


def _num_distinct(values: NDArray[np.float64]) -> int:
    return len(np.unique(values, axis=0))


def _has_atoms(values: NDArray[np.float64]) -> bool:
    """True if a value of some column, not constant, occurs in a fraction of the samples."""
    for column in values.T:
        counts = np.unique(column, return_counts=True)[1]
        if len(counts) > 1 and counts.max() >= max(3, ATOM_FRACTION * len(column)):
            return True
    return False
