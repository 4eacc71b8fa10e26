"""Arrays, tensors and data-frame columns as NumPy arrays, checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_mi.exceptions import EstimateInputError
from lightning_mi.utilities.checks import describe


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


def to_rows(array: NDArray[Any], name: str) -> NDArray[Any]:
    """(n, D) of (n,) or (n, D).

    Args:
        array: The array.
        name: The argument, for messages.

    Raises:
        EstimateInputError: It has more dimensions, or no columns.
    """
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise EstimateInputError(
            f"Got {name} of shape {array.shape}: it must be (n,) or (n, D), with one row per sample."
        )
    return array


def to_finite(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    """The array as float64.

    Args:
        array: (n, D) numbers.
        name: The argument, for messages.

    Raises:
        EstimateInputError: A value is NaN or infinite, or float64 does not tell integers apart.
    """
    values = array.astype(np.float64)
    if array.dtype.kind in "iu":
        _check_distinct(name, array, values)
    if bad := int((~np.isfinite(values)).sum()):
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise EstimateInputError(
            f"Got {name} with {bad} values that are NaN or infinite, the first in row {rows[0]}, counted from 0: no "
            "row is dropped silently. Drop or impute them in x and y together."
        )
    return values


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


def _check_distinct(name: str, exact: NDArray[Any], numbers: NDArray[np.float64]) -> None:
    """Raise if different integers have become equal numbers."""
    if np.abs(numbers).max(initial=0) > 2**53 and len(set(exact.ravel().tolist())) > len(np.unique(numbers)):
        raise EstimateInputError(
            f"Got {name} with integers that float64 does not tell apart: subtract a common offset first."
        )
