"""Contrastive losses and gradients by loops over rows and candidates, in float64 NumPy."""

from typing import NamedTuple

import numpy as np


class Gradients(NamedTuple):
    """A loss, and its gradients in rows and candidates; ``ceiling`` is the mean log of the candidates of a row."""

    loss: float
    x: np.ndarray
    y: np.ndarray
    ceiling: float


def infonce(x: np.ndarray, y: np.ndarray, rows: list[tuple[int, int, list[int]]]) -> Gradients:
    """InfoNCE of inner products.

    Args:
        x: (R, D).
        y: (C, D).
        rows: The row of x, the candidate of its joint pair, and those of its marginal pairs.
    """
    loss, d_x, d_y, ceiling = 0.0, np.zeros_like(x), np.zeros_like(y), 0.0
    for i, joint, marginal in rows:
        candidates = [joint, *marginal]
        exponentials = [np.exp(x[i] @ y[j]) for j in candidates]
        ceiling += np.log(len(candidates)) / len(rows)
        loss += (np.log(sum(exponentials) / len(candidates)) - x[i] @ y[joint]) / len(rows)
        for j, exponential in zip(candidates, exponentials, strict=True):
            slope = (exponential / sum(exponentials) - (j == joint)) / len(rows)
            d_x[i] += slope * y[j]
            d_y[j] += slope * x[i]
    return Gradients(loss, d_x, d_y, ceiling)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1."""
    return np.array([vector / np.sqrt(sum(vector**2)) for vector in vectors])


def through_unit(vectors: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """The gradient in vectors of a gradient in their :func:`unit` vectors."""
    out = np.zeros_like(vectors)
    for i, (vector, slope) in enumerate(zip(vectors, gradient, strict=True)):
        length = np.sqrt(sum(vector**2))
        out[i] = (slope - vector * (vector @ slope) / length**2) / length
    return out


def weighted_row(
    row: np.ndarray, joint: int, hardness: float, debias: float, low: float | None
) -> tuple[float, np.ndarray, bool]:
    """InfoNCE of a row with weighted negatives: the objective, its gradient in scores, and whether the limit acts."""
    others = [j for j in range(len(row)) if j != joint]
    count, positive = len(others), np.exp(row[joint])
    numerator = sum(np.exp((1 + hardness) * row[j]) for j in others)
    denominator = sum(np.exp(hardness * row[j]) for j in others)
    mean = numerator / denominator
    negative = (mean - debias * positive) / (1 - debias)
    clamped = low is not None and negative < np.exp(low)
    if clamped:
        negative = np.exp(low)
    total = positive + count * negative
    d_row = np.zeros_like(row)
    d_row[joint] = 1 - positive / total
    if not clamped:
        d_row[joint] += count * debias * positive / (1 - debias) / total
        for j in others:
            share = (1 + hardness) * np.exp((1 + hardness) * row[j]) / numerator
            share -= hardness * np.exp(hardness * row[j]) / denominator
            d_row[j] = -count * mean * share / (1 - debias) / total
    return row[joint] - np.log(total / (count + 1)), d_row, clamped
