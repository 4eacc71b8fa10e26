"""The pairs of each pairing, by its definition, and a critic whose scores encode pairs."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from lightning_mi.critics import AbstractCritic


class Pairs(NamedTuple):
    """The pairs of a batch, (x, y) by the features of :meth:`PairingSpec.views`.

    Attributes:
        joint: The joint pairs, in the order of the scores.
        marginal: The marginal pairs; of a random pairing, all that it may draw.
        num_drawn: The number of marginal pairs that a random pairing draws; None for a pairing that uses all.
        weights: The weight of each candidate in a mean over marginal pairs, up to a factor; None if all are equal.
    """

    joint: list[tuple[int, int]]
    marginal: set[tuple[int, int]]
    num_drawn: int | None = None
    weights: Mapping[int, float] | None = None


def _same(n: int) -> list[tuple[int, int]]:
    return [(i, 20 + i) for i in range(n)]


def all_pairs(n: int) -> Pairs:
    return Pairs(_same(n), {(i, 20 + j) for i in range(n) for j in range(n) if i != j})


def derangement(n: int) -> Pairs:
    return all_pairs(n)._replace(num_drawn=n)


def two_views(n: int) -> Pairs:
    samples = [*range(n), *range(20, 20 + n)]
    joint = [(i, (i + 20) % 40) for i in samples]
    return Pairs(joint, {(i, j) for i in samples for j in samples if i % 20 != j % 20})


def independent(n: int) -> Pairs:
    return Pairs(_same(n), {(40 + i, 60 + i) for i in range(n)})


def same_label(n: int) -> Pairs:
    others = [(i, j) for i in range(n) for j in range(n) if i != j]
    return Pairs([(i, j) for i, j in others if i // 2 == j // 2], set(others))


def enumerated(n: int) -> Pairs:
    labels, classes = [i // 2 for i in range(n)], range(4)
    every = {(i, label) for i in range(n) for label in classes}
    return Pairs(list(enumerate(labels)), every, weights={label: labels.count(label) for label in classes})


class Positions(AbstractCritic):
    """T(x, y) = 100 x + y: a score that encodes which rows were paired."""

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        return (100 * x + y.view_as(x))[:, 0]

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        return 100 * x + y.reshape(1, -1)


def decode(values: Tensor) -> list[tuple[int, int]]:
    """The pairs of scores of :class:`Positions`."""
    return [divmod(int(value), 100) for value in values]
