"""Checks of the arguments of Scores."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mi.utilities.numerics import upcast


def check_scores(scores: Tensor, name: str, ndim: int, may_be_empty: bool) -> None:
    """Raise a TypeError or ValueError unless scores are floating-point numbers in ``ndim`` dimensions."""
    if not isinstance(scores, Tensor):
        raise TypeError(
            f"Got `{name}` of type {type(scores).__name__}: scores are a torch.Tensor. Write torch.as_tensor({name})."
        )
    empty = scores.numel() == 0 and not may_be_empty
    if scores.ndim != ndim or not scores.is_floating_point() or empty:
        raise ValueError(
            f"Got `{name}` of shape {tuple(scores.shape)} and type {scores.dtype}: scores are floating-point numbers "
            f"in {ndim} dimension{'s' * (ndim > 1)}, at least one of them. Write {name}.float() for integers."
        )


def check_candidates(y: Tensor | None, num_columns: int) -> None:
    """Raise a ValueError unless there is one candidate for each column."""
    if y is not None and len(y) != num_columns:
        raise ValueError(
            f"Got {len(y)} candidates `y` for {num_columns} columns of scores: column j holds the scores of y[j]. "
            "Pass one candidate for each column."
        )


def check_square(matrix: Tensor, diagonal: int, may_be_wide: bool, allow_no_marginal: bool) -> None:
    """Raise a ValueError unless the diagonal has an entry in each row and there are marginal pairs beside it.

    Args:
        matrix: (N, M).
        diagonal: The column of the first row's joint pair.
        may_be_wide: Whether M may exceed N.
        allow_no_marginal: Whether M may be 1, so that there is no marginal pair.
    """
    num_rows, num_columns = matrix.shape
    fits = 0 <= diagonal <= num_columns - num_rows and (may_be_wide or num_rows == num_columns)
    smallest = 1 if allow_no_marginal else 2
    if not fits or num_columns < smallest:
        raise ValueError(
            f"Got scores of shape {tuple(matrix.shape)} and diagonal={diagonal}: without masks the diagonal holds "
            f"the joint pairs and the rest the marginal pairs, which takes a square matrix of at least {smallest} x "
            f"{smallest}. Use a batch of two or more samples, or pass `joint` and `marginal`."
        )


def check_one_placement(joint: Tensor | None, diagonal: int) -> None:
    """Raise a ValueError if both a mask and a diagonal place the joint pairs."""
    if joint is not None and diagonal:
        raise ValueError(f"Got a `joint` mask and diagonal={diagonal}: both place the joint pairs. Pass one of them.")


def check_default_columns(
    y: Tensor, num_joint: int, num_marginal: int, joint_columns: Tensor | None, marginal_columns: Tensor | None
) -> None:
    """Raise a ValueError unless ``y`` has the rows of the default columns, for lists of pairs without columns."""
    if marginal_columns is None:
        fits = len(y) == num_joint + num_marginal
    else:
        fits = joint_columns is not None or len(y) >= num_joint
    if not fits:
        raise ValueError(
            f"Got {len(y)} candidates `y` for {num_joint} joint and {num_marginal} marginal scores: by default `y` has "
            "one row for each pair, joint pairs first. Pass `joint_columns` and `marginal_columns`, the "
            "row that each pair uses."
        )


def check_columns(name: str, columns: Tensor, scores: Tensor) -> None:
    """Raise a ValueError unless each score of a list has one column."""
    if columns.shape != scores.shape:
        raise ValueError(
            f"Got {name}_columns of shape {tuple(columns.shape)} for {name} scores of shape {tuple(scores.shape)}: "
            "each score uses one candidate. Pass one column for each score."
        )


def check_has_pairs(name: str, found: int, allow_none: bool) -> None:
    """Raise a ValueError if a mask has no True entry, unless ``allow_none``."""
    if not (found or allow_none):
        raise ValueError(
            f"Got a `{name}` mask without a single True: a bound needs at least one {name} pair. Pass another mask, or "
            f"allow_no_{name}=True."
        )


def check_has_both(num_joint: int, num_marginal: int, allow_no_marginal: bool) -> None:
    """Raise a ValueError if two lists have no joint pair or, unless ``allow_no_marginal``, no marginal pair."""
    if not (num_joint and (num_marginal or allow_no_marginal)):
        raise ValueError(
            f"Got {num_joint} joint and {num_marginal} marginal pairs over all ranks: a bound needs at least one of "
            "each. Raise the batch size."
        )


def check_has_rows(joint_rows: Tensor | None) -> Tensor:
    """Return the rows of the joint pairs; raise a ValueError for two lists of pairs, which have none."""
    if joint_rows is None:
        raise ValueError(
            "Got two lists of pairs: a bound over rows (InfoNCE) compares each joint pair with the marginal pairs of "
            "the same x. Use a pairing that scores all pairs, such as pairs.AllPairs()."
        )
    return joint_rows


def check_mask(mask: Tensor, name: str, matrix: Tensor) -> Tensor:
    """Return a mask; raise a ValueError unless it has a boolean for each entry of the matrix."""
    if mask.dtype != torch.bool or mask.shape != matrix.shape:
        raise ValueError(
            f"Got a `{name}` mask of shape {tuple(mask.shape)} and type {mask.dtype} for scores of shape "
            f"{tuple(matrix.shape)}: it must be boolean and of the same shape. Write {name}.bool() for 0 and 1."
        )
    return mask


def check_joint_weights(weights: Tensor, matrix: Tensor) -> Tensor:
    """Return the weights of joint pairs in the dtype of the matrix.

    Raises:
        ValueError: The weights do not fit the matrix, or one is negative or not finite.
    """
    if weights.shape != matrix.shape:
        raise ValueError(
            f"Got weights of `joint` pairs of shape {tuple(weights.shape)} for scores of shape {tuple(matrix.shape)}: "
            "there is one weight for each entry, 0 where there is no joint pair."
        )
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError(
            "Got weights of `joint` pairs that are negative or not finite: they are at least 0, with 0 where there is "
            "no joint pair."
        )
    return weights.to(matrix)


def check_log_weights(log_weights: Tensor, marginal: Tensor, matrix: Tensor) -> Tensor | None:
    """Return log-weights in the dtype of the matrix, or None if all are equal: the default of every reduction.

    Raises:
        ValueError: The weights do not fit the matrix, do not sum to 1, or the mask excludes pairs.
    """
    if log_weights.shape != matrix.shape[1:] or not log_weights.is_floating_point():
        raise ValueError(
            f"Got log_weights of shape {tuple(log_weights.shape)} and type {log_weights.dtype} for scores of shape "
            f"{tuple(matrix.shape)}: pass one floating-point number for each candidate, ({matrix.shape[1]},)."
        )
    total = upcast(log_weights).exp().sum()
    if not abs(total - 1) < 1e-3:
        raise ValueError(
            f"Got log_weights whose weights sum to {total:g}: they are probabilities of the candidates and sum to 1. "
            "Write log_weights.log_softmax(0)."
        )
    if not marginal.all():
        raise ValueError(
            "Got log_weights and a `marginal` mask that excludes pairs: the weights sum to 1 over every row's pairs. "
            "Give the excluded candidates a log-weight of -inf."
        )
    return None if (log_weights == log_weights[0]).all() else log_weights.to(matrix.device, matrix.dtype)
