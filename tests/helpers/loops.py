"""Batches of each pairing, and bounds on them by Python loops over pairs, without any reduction of the package."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lightning_mi import Scores, bounds
from lightning_mi.critics import AbstractCritic, LabelCritic
from lightning_mi.pairs import AbstractPairing, EnumeratedLabels, SameLabel, TwoViews
from tests.helpers.specs import LEARNED_BIAS, LEARNED_WEIGHT, BoundSpec

PRIOR = [0.5, 0.1, 0.25, 0.15]


class Given(AbstractCritic):
    """A critic that returns a fixed matrix."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        assert self.matrix.shape == (len(x), len(y))
        return self.matrix


@dataclass(frozen=True)
class Batch:
    """A pairing, a batch for it, and its pairs by definition, row by row."""

    name: str
    pairing: AbstractPairing
    shape: tuple[int, int]
    labels: list[int] | None
    joint: list[tuple[int, int]]
    marginal: list[tuple[float, int, int]]  # weight in E_Q, x, y
    rows: dict[int, list[tuple[float, int]]] = field(default_factory=dict)  # of each x: weight in its row, y

    def draw(self, seed: int = 0, mean: float = 0.3, std: float = 1.5) -> np.ndarray:
        return np.random.default_rng(seed).normal(mean, std, self.shape)

    @property
    def representations(self) -> np.ndarray:
        return np.random.default_rng(7).normal(size=(self.shape[0], 2))

    @property
    def log_a(self) -> np.ndarray:
        """(M,) the output of the learned baseline of :meth:`bound`."""
        if isinstance(self.pairing, EnumeratedLabels):
            return np.sin(np.arange(self.shape[1]))
        return self.representations @ LEARNED_WEIGHT + LEARNED_BIAS

    def bound(self, spec: BoundSpec) -> bounds.AbstractBound:
        if spec.with_baseline is not None and isinstance(self.pairing, EnumeratedLabels):
            return spec.with_baseline(nn.Embedding.from_pretrained(torch.tensor(self.log_a)[:, None]))
        return spec.make()

    def scores(self, t: Tensor) -> Scores:
        labels = None if self.labels is None else torch.tensor(self.labels)
        if isinstance(self.pairing, EnumeratedLabels):
            return self.pairing(LabelCritic(), t, labels)
        z = torch.tensor(self.representations)
        if labels is None:
            return self.pairing(Given(t), *z.chunk(2))
        return self.pairing(Given(t), z, labels)


def enumerated(
    name: str, labels: list[int], prior: list[float] | Literal["uniform"] | None = None, num_classes: int = 4
) -> Batch:
    n = len(labels)
    law = [labels.count(c) / n for c in range(num_classes)] if prior is None else prior  # the frequencies of the batch
    law = [1 / num_classes] * num_classes if law == "uniform" else law
    joint = [(i, labels[i]) for i in range(n)]
    marginal = [(law[c] / n, i, c) for i in range(n) for c in range(num_classes)]
    rows = {i: [(law[c], c) for c in range(num_classes)] for i in range(n)}
    return Batch(name, EnumeratedLabels(num_classes, prior), (n, num_classes), labels, joint, marginal, rows)


def same_label(name: str, labels: list[int], exclude: bool = False) -> Batch:
    n = len(labels)
    joint, others, rows = [], [], {}
    for i in range(n):
        rows[i] = [(1 / (n - 1), j) for j in range(n) if j != i]
        for j in range(n):
            if i != j and labels[i] == labels[j]:
                joint.append((i, j))
            if i != j and not (exclude and labels[i] == labels[j]):
                others.append((i, j))
    marginal = [(1 / len(others), i, j) for i, j in others]
    return Batch(name, SameLabel(exclude), (n, n), labels, joint, marginal, rows)


def two_views(name: str, n: int) -> Batch:
    joint = [(i, i + n) for i in range(n)] + [(i + n, i) for i in range(n)]
    others = [(i, j) for i in range(2 * n) for j in range(2 * n) if i % n != j % n]
    marginal = [(1 / len(others), i, j) for i, j in others]
    rows = {i: [(1 / (2 * n - 1), j) for j in range(2 * n) if j != i] for i in range(2 * n)}
    return Batch(name, TwoViews(), (2 * n, 2 * n), None, joint, marginal, rows)


NO_JOINT = same_label("same label, no joint pair", [3, 1, 2, 0])
BATCHES = [
    enumerated("labels", [2, 0, 3, 2, 2], "uniform"),
    enumerated("labels, counted", [2, 0, 3, 2, 2]),
    enumerated("labels, equal counts", [2, 0, 3, 1]),
    enumerated("labels, prior", [2, 0, 3, 2, 2], PRIOR),
    enumerated("labels, prior with a zero", [2, 0, 2], [0.5, 0.0, 0.25, 0.25]),
    enumerated("labels, batch of one", [1], "uniform"),
    enumerated("labels, prior, batch of one", [1], PRIOR),
    same_label("same label", [5, 2, 5, 5, 2]),
    same_label("same label, a class of one sample", [0, 9, 0, 4]),
    same_label("same label, one class", [1, 1, 1]),
    same_label("same label excluded", [5, 2, 5, 5, 2], exclude=True),
    NO_JOINT,
    two_views("two views", 3),
]


class Loop(NamedTuple):
    """The terms of a bound."""

    value: float
    objective: float
    joint_term: float
    marginal_term: float
    log_normalizer: float


def read(spec: BoundSpec, batch: Batch, t: np.ndarray) -> Loop:
    """One bound of ``REDUCTIONS`` on scores t."""

    def mean_p(f: Callable[[int, int], float]) -> float:
        return math.fsum(f(i, j) for i, j in batch.joint) / len(batch.joint) if batch.joint else 0.0

    def mean_q(f: Callable[[int, int], float]) -> float:
        return math.fsum(weight * f(i, j) for weight, i, j in batch.marginal)

    def score(i: int, j: int) -> float:
        return float(t[i, j])

    def clipped(i: int, j: int) -> float:
        return min(max(float(t[i, j]), -2.0), 2.0)

    def over_baseline(i: int, j: int) -> float:
        return float(t[i, j]) - batch.log_a[j]

    def row(i: int, j: int) -> float:
        return math.log(math.fsum(weight * math.exp(t[i, k]) for weight, k in batch.rows[i]))

    joint = mean_p(score)
    ell = math.log(mean_q(lambda i, j: math.exp(score(i, j))))
    if spec.name == "DV":
        return Loop(joint - ell, joint - ell, joint, ell, ell)
    if spec.name == "SMILE":
        marginal = math.log(mean_q(lambda i, j: math.exp(clipped(i, j))))
        return Loop(joint - marginal, joint - marginal, joint, marginal, ell)
    if spec.name == "InfoNCE":
        ell = mean_p(row)
        return Loop(joint - ell, joint - ell, joint, ell, ell)
    if spec.name == "TUBA(learned)":
        joint, marginal = 1 + mean_p(over_baseline), mean_q(lambda i, j: math.exp(over_baseline(i, j)))
        ell = math.log(marginal)
        capped = marginal if ell <= 1 else math.e * ell
        return Loop(joint - marginal, joint - capped, joint, marginal, ell)
    assert spec.name == "JS"
    softplus_joint = mean_p(lambda i, j: math.log1p(math.exp(-score(i, j))))
    softplus_marginal = mean_q(lambda i, j: math.log1p(math.exp(score(i, j))))
    joint, marginal = 1 + joint, math.exp(ell)
    return Loop(joint - marginal, -softplus_joint - softplus_marginal, joint, marginal, ell)


def slopes(f: Callable[[np.ndarray], float], t: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """The gradient of f, by central differences."""
    gradient = np.zeros(t.shape)
    for index in np.ndindex(*t.shape):
        above, below = t.copy(), t.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = (f(above) - f(below)) / (2 * step)
    return gradient
