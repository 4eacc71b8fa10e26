"""Arrays, tensors and data-frame columns as one variable: numbers, or labels of a discrete variable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from lightning_mi.estimation.coordinates import ATOM_FRACTION
from lightning_mi.exceptions import EstimateInputError
from lightning_mi.utilities.checks import check_choice, describe

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
    array = _to_rows(name, array)
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
    values = _finite(name, array)
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
    array = _to_rows(name, array)
    columns = fitted.values.shape[1] if fitted.categories is None else fitted.categories.shape[1]
    if array.shape[1] != columns:
        raise EstimateInputError(f"Got {name} with {array.shape[1]} columns: the fit had {columns}.")
    if fitted.categories is not None:
        return _new_labels(array, fitted)
    if array.dtype.kind not in "biuf":
        raise EstimateInputError(f"Got {name} of dtype {array.dtype}: the fit had numbers.")
    return _finite(name, array)


def _discrete(name: str, array: NDArray[Any], constant: tuple[int, ...] = ()) -> Variable:
    if array.dtype.kind == "O":
        missing = np.array([[value is None or value != value for value in row] for row in array])
        if missing.any():
            raise EstimateInputError(
                f"Got {name} with {missing.sum()} labels that are missing, the first in row "
                f"{np.flatnonzero(missing.any(axis=1))[0]}: no row is dropped silently. Drop such rows in x and y "
                "together, or give them a label."
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


def _to_rows(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """(n, D) of (n,) or (n, D)."""
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise EstimateInputError(
            f"Got {name} of shape {array.shape}: it must be (n,) or (n, D), with one row per sample."
        )
    return array


def _finite(name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    """The array as float64; raise if a value is NaN or infinite."""
    values = array.astype(np.float64)
    if array.dtype.kind in "iu":
        _check_distinct(name, array, values)
    if bad := int((~np.isfinite(values)).sum()):
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise EstimateInputError(
            f"Got {name} with {bad} values that are NaN or infinite, the first in row {rows[0]}: no row is dropped "
            "silently. Drop or impute them in x and y together."
        )
    return values


def to_array(data: Any, name: str) -> NDArray[Any]:
    """A NumPy array of numbers, text or objects.

    Args:
        data: A NumPy array, tensor, pandas or polars column or frame, or list.
        name: The argument, for messages.

    Raises:
        EstimateInputError: The data are no array, a scalar, or of a dtype such as dates.
    """
    check_unmasked(data, name)
    if hasattr(data, "detach"):  # a tensor
        data = data.detach().cpu()
        data = data.float() if str(data.dtype) == "torch.bfloat16" else data
    elif hasattr(data, "to_numpy"):  # a column or a frame of pandas or polars
        data = data.to_numpy()
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise EstimateInputError(f"Got {name} that is no array: {error}. Pass rows of equal length.") from None
    if array.ndim == 0:
        raise EstimateInputError(f"Got {describe(name, data)}: pass an array with one row for each sample.")
    if array.dtype.kind not in "biufcOUS":
        raise EstimateInputError(
            f"Got {name} of dtype {array.dtype}: convert it to numbers, such as seconds for times."
        )
    if array.dtype.kind == "O":
        try:
            numbers = array.astype(np.float64)  # numbers in an object array
        except (TypeError, ValueError):
            return array
        _check_distinct(name, array, numbers)
        return numbers
    return array


def check_unmasked(data: Any, name: str) -> None:
    """Check that no entry of a masked array is masked: conversions drop the mask.

    Raises:
        EstimateInputError: An entry is masked.
    """
    if isinstance(data, np.ma.MaskedArray) and (masked := int(np.ma.getmaskarray(data).sum())):
        raise EstimateInputError(
            f"Got {name} with {masked} masked entries: no row is dropped silently. Drop or impute them in x and y "
            "together."
        )


def _check_distinct(name: str, exact: NDArray[Any], numbers: NDArray[np.float64]) -> None:
    """Raise if different integers have become equal numbers."""
    if np.abs(numbers).max(initial=0) > 2**53 and len(set(exact.ravel().tolist())) > len(np.unique(numbers)):
        raise EstimateInputError(
            f"Got {name} with integers that float64 does not tell apart: subtract a common offset first."
        )


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


def check_lengths(lengths: Mapping[str, int]) -> None:
    """Check that all variables, by name, have the same number of samples.

    Raises:
        EstimateInputError: Two differ.
    """
    (first, n), *others = lengths.items()
    for name, length in others:
        if length != n:
            raise EstimateInputError(
                f"Got {n} samples of {first} and {length} of {name}: row i of both is one sample, so both have the "
                "same length."
            )


def _num_distinct(values: NDArray[np.float64]) -> int:
    return len(np.unique(values, axis=0))


def _has_atoms(values: NDArray[np.float64]) -> bool:
    """True if a value of some column, not constant, occurs in a fraction of the samples."""
    for column in values.T:
        counts = np.unique(column, return_counts=True)[1]
        if len(counts) > 1 and counts.max() >= max(3, ATOM_FRACTION * len(column)):
            return True
    return False
