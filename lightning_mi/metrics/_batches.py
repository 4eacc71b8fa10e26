"""Several batches at once, as metrics take them in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.bounds import BoundTerms
from lightning_mi.scores.scores import Scores

_NUM_TERMS = len(BoundTerms._fields)


class Counts(NamedTuple):
    """The pairs of a batch, as :class:`Scores` counts them: of all processes if pooled, and this one's own."""

    num_joint: int
    num_marginal: int
    world_size: int
    own_joint: int
    own_marginal: int


@final
class Batches:
    """Several batches, with the numbers that metrics ask of their scores in place of the scores.

    Attributes:
        terms: What a bound read on S batches, (S,) each.
        num_joint: Of each batch, what :class:`Scores` has of one; so are those that follow.
        num_marginal: Of each.
        world_size: Of each.

    Example:
        >>> numbers, counts = digest(BoundTerms(*torch.zeros(5)), Scores.from_matrix(torch.zeros(3, 3)))
        >>> Batches(torch.stack([numbers]), [counts]).num_marginal
        [6]
    """

    def __init__(self, numbers: Tensor, counts: Sequence[Counts]) -> None:
        self._numbers, self._counts = numbers, counts
        self.terms = BoundTerms(*numbers[:, :_NUM_TERMS].unbind(1))
        self.num_joint = [one.num_joint for one in counts]
        self.num_marginal = [one.num_marginal for one in counts]
        self.world_size = [one.world_size for one in counts]

    def local(self) -> Batches:
        """Of this process's pairs alone."""
        own = [Counts(one.own_joint, one.own_marginal, 1, one.own_joint, one.own_marginal) for one in self._counts]
        return Batches(self._numbers, own)

    def log_mean_exp(self, power: float = 1.0) -> Tensor:
        """(S,) log E_Q[exp(power * T)] over this process's marginal pairs, for a power of 1 or 2; nats."""
        return self._numbers[:, _NUM_TERMS + {1.0: 0, 2.0: 1}[power]]


class Digest(NamedTuple):
    """What :class:`Batches` keeps of one batch: (K,) numbers, the terms first, and its counts of pairs."""

    numbers: Tensor
    counts: Counts


@torch.no_grad()
def digest(terms: BoundTerms, scores: Scores) -> Digest:
    """Read what is kept of a batch.

    Example:
        >>> digest(BoundTerms(*torch.ones(5)), Scores.from_matrix(torch.zeros(3, 3))).numbers
        tensor([1., 1., 1., 1., 1., 0., 0.])
    """
    own = scores.local()
    numbers = torch.stack([*terms, own.log_mean_exp(), own.log_mean_exp(power=2.0)])
    counts = Counts(scores.num_joint, scores.num_marginal, scores.world_size, own.num_joint, own.num_marginal)
    return Digest(numbers, counts)
