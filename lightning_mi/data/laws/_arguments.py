"""Arguments of laws: matrices as hashable tuples, covariances and probabilities, with checks."""

import math
from collections.abc import Sequence

import torch

from lightning_mi.utilities.checks import check_number


def matrix_tuple(name: str, rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Rows of numbers as a tuple of tuples, which can be compared and hashed.

    Raises:
        TypeError: An entry is not a number.
        ValueError: There is no entry, or rows differ in length.

    Example:
        >>> matrix_tuple("table", [[1, 2], [3, 4]])
        ((1.0, 2.0), (3.0, 4.0))
    """
    result = tuple(vector_tuple(name, row) for row in rows)
    if not result or any(len(row) != len(result[0]) for row in result):
        raise ValueError(f"Got {name} with rows of lengths {[len(row) for row in result]}: they must be equal.")
    return result


def vector_tuple(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Numbers as a tuple of floats; TypeError if an entry is not a number, ValueError if it is empty or not finite.

    Example:
        >>> vector_tuple("weights", [1, 2])
        (1.0, 2.0)
    """
    for value in values:
        check_number(f"an entry of {name}", value, "finite")
    result = tuple(float(value) for value in values)
    if not result or not all(map(math.isfinite, result)):
        raise ValueError(f"Got {name}={result}: it has at least one entry, and all are finite.")
    return result


def check_covariance(name: str, rows: Sequence[Sequence[float]]) -> None:
    """Check that a matrix is symmetric and positive definite.

    Raises:
        ValueError: It is not.

    Example:
        >>> check_covariance("covariance", [[1.0, 1.0], [1.0, 1.0]])
        Traceback (most recent call last):
        ValueError: Got a covariance that is not positive definite: ...
    """
    matrix = torch.tensor(rows, dtype=torch.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"Got {name} of shape {tuple(matrix.shape)}: a covariance is a square matrix.")
    if not torch.allclose(matrix, matrix.T, rtol=1e-12, atol=1e-12):
        raise ValueError(f"Got a {name} that is not symmetric: average it with its transpose.")
    if torch.linalg.cholesky_ex(matrix).info.item() != 0:
        raise ValueError(
            f"Got a {name} that is not positive definite: coordinates are a linear function of others, and the mutual "
            "information may be infinite. Add noise to the diagonal."
        )


def check_probability(name: str, value: float) -> None:
    """Check that a number is in [0, 1].

    Raises:
        TypeError: It is not a number.
        ValueError: It is out of range.

    Example:
        >>> check_probability("error", 1.5)
        Traceback (most recent call last):
        ValueError: Got error=1.5: it is a probability from 0 to 1.
    """
    check_number(name, value, "a probability")
    if not 0 <= value <= 1:
        raise ValueError(f"Got {name}={value}: it is a probability from 0 to 1.")


def check_law(name: str, probabilities: Sequence[float]) -> None:
    """Check that numbers are non-negative with sum 1, up to 1e-9.

    Raises:
        ValueError: They are not.

    Example:
        >>> check_law("weights", [0.5, 0.6])
        Traceback (most recent call last):
        ValueError: Got weights with sum 1.1 and minimum 0.5: probabilities are at least 0 and have sum 1. Divide ...
    """
    total = math.fsum(probabilities)
    if min(probabilities) < 0 or abs(total - 1) > 1e-9:
        raise ValueError(
            f"Got {name} with sum {total:.6g} and minimum {min(probabilities):.6g}: probabilities are at least 0 and "
            "have sum 1. Divide them by their sum."
        )
