"""Contrastive losses by their published formulas: loops over anchors in float64 NumPy, with gradients by hand."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Matrix = np.ndarray


class Anchor(NamedTuple):
    """One row: -sum_p weight_p log(exp(s_p) / sum_k exp(s_k)) over positives p and candidates k."""

    row: int
    positives: dict[int, float]
    candidates: list[int]


class Published(NamedTuple):
    """The mean over anchors, and its gradients."""

    loss: float
    grad_x: Matrix
    grad_y: Matrix
    grad_log_temperature: float


def loop(x: Matrix, y: Matrix, anchors: Sequence[Anchor], temperature: float) -> Published:
    """The mean over anchors, rows of x, with candidates that are rows of y; scores are cosines over a temperature."""
    slopes = np.zeros((len(x), len(y)))
    unit_x, unit_y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    scores = unit_x @ unit_y.T / temperature
    loss = 0.0
    for i, positives, candidates in anchors:
        total = math.fsum(math.exp(scores[i, k]) for k in candidates)
        for p, weight in positives.items():
            loss -= weight * (scores[i, p] - math.log(total)) / len(anchors)
            slopes[i, p] -= weight / len(anchors)
            for k in candidates:
                slopes[i, k] += weight * math.exp(scores[i, k]) / total / len(anchors)

    def through_norm(grad_unit: Matrix, unit: Matrix, z: Matrix) -> Matrix:
        along = (grad_unit * unit).sum(axis=1, keepdims=True) * unit
        return (grad_unit - along) / np.linalg.norm(z, axis=1, keepdims=True) / temperature

    grad_x, grad_y = through_norm(slopes @ unit_y, unit_x, x), through_norm(slopes.T @ unit_x, unit_y, y)
    return Published(loss, grad_x, grad_y, -float((slopes * scores).sum()))


def ntxent(x: Matrix, y: Matrix, temperature: float) -> Published:
    """Chen et al. 2020, equation 1; the gradients of x and y."""
    n, z = len(x), np.concatenate([x, y])
    anchors = [Anchor(i, {(i + n) % (2 * n): 1.0}, [k for k in range(2 * n) if k != i]) for i in range(2 * n)]
    loss, left, right, slope = loop(z, z, anchors, temperature)
    return Published(loss, (left + right)[:n], (left + right)[n:], slope)


def supcon(z: Matrix, labels: Sequence[int], temperature: float) -> Published:
    """Khosla et al. 2020, equation 2, as a mean over the anchors that have a positive; the gradient of z is grad_x."""
    anchors = []
    for i, label in enumerate(labels):
        others = [k for k in range(len(z)) if k != i]
        positives = [k for k in others if labels[k] == label]
        if positives:
            anchors.append(Anchor(i, dict.fromkeys(positives, 1 / len(positives)), others))
    loss, left, right, slope = loop(z, z, anchors, temperature)
    return Published(loss, left + right, np.zeros_like(z), slope)


def both_directions(
    x: Matrix, y: Matrix, anchors: Sequence[Anchor], back: Sequence[Anchor], temperature: float
) -> Published:
    """The mean of the anchors x among y, and of the anchors y among x."""
    there, again = loop(x, y, anchors, temperature), loop(y, x, back, temperature)
    return Published(
        (there.loss + again.loss) / 2,
        (there.grad_x + again.grad_y) / 2,
        (there.grad_y + again.grad_x) / 2,
        (there.grad_log_temperature + again.grad_log_temperature) / 2,
    )


def clip(x: Matrix, y: Matrix, temperature: float) -> Published:
    """Radford et al. 2021: the mean of both cross-entropies of the matrix of logits."""
    anchors = [Anchor(i, {i: 1.0}, list(range(len(x)))) for i in range(len(x))]
    return both_directions(x, y, anchors, anchors, temperature)


def same_id(
    x: Matrix, y: Matrix, x_ids: Sequence[int], y_ids: Sequence[int], temperature: float
) -> tuple[Published, float]:
    """Each positive against the entries of other ids; and the mean log number of candidates, weighted alike."""
    directions, logs = [], []
    for (anchor_ids, ids), (a, b) in (((x_ids, y_ids), (x, y)), ((y_ids, x_ids), (y, x))):
        rows = []
        for i, own in enumerate(anchor_ids):
            positives = [j for j, other in enumerate(ids) if other == own]
            negatives = [j for j, other in enumerate(ids) if other != own]
            rows.append([(i, p, 1 / len(positives), [p, *negatives]) for p in positives])
        rows = [row for row in rows if row]
        # Anchors of one positive each: a mean over all of them times their number is a sum.
        total, count = Published(0.0, np.zeros_like(a), np.zeros_like(b), 0.0), len(rows)
        for row in rows:
            for i, p, weight, candidates in row:
                part = loop(a, b, [Anchor(i, {p: weight / count}, candidates)], temperature)
                total = Published(
                    total.loss + part.loss,
                    total.grad_x + part.grad_x,
                    total.grad_y + part.grad_y,
                    total.grad_log_temperature + part.grad_log_temperature,
                )
        directions.append(total)
        logs.append(sum(weight * math.log(len(c)) for row in rows for _, _, weight, c in row) / count)
    there, again = directions
    published = Published(
        (there.loss + again.loss) / 2,
        (there.grad_x + again.grad_y) / 2,
        (there.grad_y + again.grad_x) / 2,
        (there.grad_log_temperature + again.grad_log_temperature) / 2,
    )
    return published, sum(logs) / 2


def overlapping(z: Matrix, labels: Matrix, weights: str, temperature: float) -> Published:
    """SupCon with positives that share a label, weighted equally or by the Jaccard index; grad_x is that of z."""
    sets = [set(np.flatnonzero(row)) for row in labels]
    anchors = []
    for i, own in enumerate(sets):
        others = [k for k in range(len(z)) if k != i]
        found = {k: len(own & sets[k]) / len(own | sets[k]) for k in others if own & sets[k]}
        if weights == "equal":
            found = dict.fromkeys(found, 1.0)
        if found:
            anchors.append(Anchor(i, {k: w / sum(found.values()) for k, w in found.items()}, others))
    loss, left, right, slope = loop(z, z, anchors, temperature)
    return Published(loss, left + right, np.zeros_like(z), slope)
