"""Batches of each pairing, and bounds on them by Python loops over pairs, without any reduction of the package."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lightning_mi import Scores, bounds
from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs import AbstractPairing, EnumeratedLabels, SameLabel
from tests.helpers.pairs_by_definition import Positions, decode
from tests.helpers.specs import LEARNED_BIAS, LEARNED_WEIGHT, PAIRINGS, BoundSpec, PairingSpec

PRIOR = [0.5, 0.1, 0.25, 0.15]


class FixedCritic(AbstractCritic):
    """A critic that returns a fixed matrix."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        assert self.matrix.shape == (len(x), len(y))
        return self.matrix


class Lookup(AbstractCritic):
    """Scores from a table, by the first feature of x and of y."""

    def __init__(self, table: Tensor, xs: list[int], ys: list[int]) -> None:
        super().__init__()
        self.table, self.xs, self.ys = table, xs, ys

    def _indices(self, x: Tensor, y: Tensor) -> tuple[list[int], list[int]]:
        features = (view.reshape(len(view), -1)[:, 0].int().tolist() for view in (x, y))
        return [self.xs.index(i) for i in next(features)], [self.ys.index(j) for j in next(features)]

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        return self.table[self._indices(x, y)]

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        rows, columns = self._indices(x, y)
        return self.table[rows][:, columns]


@dataclass(frozen=True)
class Batch:
    """A pairing, a batch for it, and its pairs by definition: indices of ``xs`` and ``ys``."""

    name: str
    pairing: AbstractPairing
    xs: list[int]  # the first feature of each x
    ys: list[int]
    views: list[Tensor]
    joint: list[tuple[int, int]]
    marginal: list[tuple[float, int, int]]  # weight in E_Q, x, y
    rows: dict[int, list[tuple[float, int]]] = field(default_factory=dict)  # of each x: weight in its row, y
    candidates_are_labels: bool = False

    def draw(self, seed: int = 0, mean: float = 0.3, std: float = 1.5) -> np.ndarray:
        return np.random.default_rng(seed).normal(mean, std, (len(self.xs), len(self.ys)))

    @property
    def log_a(self) -> np.ndarray:
        """(M,) the output of the learned baseline of :meth:`bound`."""
        if self.candidates_are_labels:
            return np.sin(self.ys)
        return _representations(torch.tensor(self.ys)).numpy() @ LEARNED_WEIGHT + LEARNED_BIAS

    def bound(self, spec: BoundSpec) -> bounds.AbstractBound:
        if spec.with_baseline is not None and self.candidates_are_labels:
            return spec.with_baseline(nn.Embedding.from_pretrained(torch.tensor(self.log_a)[:, None]))
        return spec.make()

    def scores(self, t: Tensor) -> Scores:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # a random pairing draws the pairs of from_spec
            return self.pairing(Lookup(t, self.xs, self.ys), *self.views)


def _representations(numbers: Tensor) -> Tensor:
    """(N, 2) features, the first of which are the numbers; the learned baseline reads a moderate value from both."""
    ratio = LEARNED_WEIGHT[0] / LEARNED_WEIGHT[1]
    return torch.stack([numbers.double(), numbers.double().sin() - ratio * numbers], dim=1)


def enumerated(
    name: str, labels: list[int], prior: list[float] | Literal["uniform"] | None = None, num_classes: int = 4
) -> Batch:
    n, classes = len(labels), list(range(num_classes))
    law = [labels.count(c) / n for c in classes] if prior is None else prior  # the frequencies of the batch
    law = [1 / num_classes] * num_classes if law == "uniform" else law
    joint = list(enumerate(labels))
    marginal = [(law[c] / n, i, c) for i in range(n) for c in classes]
    rows = {i: [(law[c], c) for c in classes] for i in range(n)}
    views = [_representations(torch.arange(n)), torch.tensor(labels)]
    pairing = EnumeratedLabels(num_classes, prior)
    return Batch(name, pairing, list(range(n)), classes, views, joint, marginal, rows, candidates_are_labels=True)


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
    views = [_representations(torch.arange(n)), torch.tensor(labels)]
    return Batch(name, SameLabel(exclude), list(range(n)), list(range(n)), views, joint, marginal, rows)


def from_spec(spec: PairingSpec, n: int = 3) -> Batch:
    """The batch of a pairing's spec, with the pairs of its definition; of a random pairing, those of seed 0."""
    pairing, inputs, pairs = spec.make(), spec.views(n), spec.pairs_of(n)
    drawn = sorted(pairs.marginal)
    if pairs.num_drawn is not None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            drawn = decode(pairing(Positions(), *inputs).marginal_values())
    found = [*pairs.joint, *drawn]
    xs, ys = (sorted(set(numbers)) for numbers in zip(*found, strict=True))
    weight = dict.fromkeys(ys, 1.0) if pairs.weights is None else pairs.weights
    total = sum(weight[y] for _, y in drawn)
    rows = {}
    for x in xs if spec.has_rows else ():
        candidates = sorted({y for i, y in found if i == x})
        in_row = sum(weight[y] for y in candidates)
        rows[xs.index(x)] = [(weight[y] / in_row, ys.index(y)) for y in candidates]
    return Batch(
        name=spec.name,
        pairing=pairing,
        xs=xs,
        ys=ys,
        views=[view if view.ndim == 1 else _representations(view[:, 0]) for view in inputs],
        joint=[(xs.index(x), ys.index(y)) for x, y in pairs.joint],
        marginal=[(weight[y] / total, xs.index(x), ys.index(y)) for x, y in drawn],
        rows=rows,
        candidates_are_labels=spec.candidates_are_labels,
    )


NO_JOINT = same_label("same label, no joint pair", [3, 1, 2, 0])
BATCHES = [
    *map(from_spec, PAIRINGS),
    enumerated("labels, uniform", [2, 0, 3, 2, 2], "uniform"),
    enumerated("labels, equal counts", [2, 0, 3, 1]),
    enumerated("labels, prior", [2, 0, 3, 2, 2], PRIOR),
    enumerated("labels, prior with a zero", [2, 0, 2], [0.5, 0.0, 0.25, 0.25]),
    enumerated("labels, batch of one", [1], "uniform"),
    enumerated("labels, prior, batch of one", [1], PRIOR),
    same_label("same label", [5, 2, 5, 5, 2]),
    same_label("same label, one class", [1, 1, 1]),
    same_label("same label excluded", [5, 2, 5, 5, 2], exclude=True),
    NO_JOINT,
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

    def marginal_row(i: int, j: int) -> float:
        weights = {k: weight for weight, x, k in batch.marginal if x == i}
        weights = weights or {k: 1.0 for x, k in batch.joint if x == i}
        total = math.fsum(weight * math.exp(t[i, k]) for k, weight in weights.items())
        return math.log(total / math.fsum(weights.values()))

    def row_mean(i: int, j: int) -> float:
        return math.fsum(weight * t[i, k] for weight, k in batch.rows[i])

    joint = mean_p(score)
    surrogates = {
        "L1Out": lambda: mean_p(marginal_row),
        "CLUB": lambda: mean_p(row_mean),
        "CLUBSample": lambda: mean_q(score),
    }
    if spec.name in surrogates:
        marginal = surrogates[spec.name]()
        return Loop(joint - marginal, joint, joint, marginal, marginal)
    ell = math.log(mean_q(lambda i, j: math.exp(score(i, j))))
    if spec.name == "DV":
        return Loop(joint - ell, joint - ell, joint, ell, ell)
    if spec.name == "SMILE":
        marginal = math.log(mean_q(lambda i, j: math.exp(clipped(i, j))))
        return Loop(joint - marginal, joint - marginal, joint, marginal, ell)
    if spec.name == "InfoNCE":
        ell = mean_p(row)
        return Loop(joint - ell, joint - ell, joint, ell, ell)
    if spec.name == "DCL":
        ell = mean_p(row)
        return Loop(joint - ell, joint - mean_p(marginal_row), joint, ell, ell)
    if spec.name == "Hellinger":
        halves = mean_p(lambda i, j: math.exp(-score(i, j) / 2)), mean_q(lambda i, j: math.exp(score(i, j) / 2))
        continued = [half if half <= math.e else math.e * math.log(half) for half in halves]
        without_joint = 0.0 if batch.joint else 1.0  # the log of the mean counts as 0
        return Loop(joint, 2 - sum(continued) - without_joint, joint, 0.0, ell)
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
