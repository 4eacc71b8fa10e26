"""Sums over the pairs of a batch that several processes may share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_mi.scores.batch_shard import one_row_per_rank
from lightning_mi.utilities.distributed import all_gather_ints
from lightning_mi.utilities.numerics import log_mean_exp


class Part(NamedTuple):
    """A process's part of a sum: a scalar. With ``log`` it is a logarithm, and so is the sum."""

    value: Tensor
    log: bool


class GlobalCounts(NamedTuple):
    """How many pairs there are, and how the processes' parts of a sum add up.

    Attributes:
        num_joint: The number of joint pairs.
        num_marginal: The number of marginal pairs.
        num_rows: The number of rows of a score matrix.
        longest_row: How many pairs the longest row holds.
        copies: How many processes get the same sums.
        asked: The parts of sums that wait to be added up together; None where each is added up at once.
    """

    num_joint: int
    num_marginal: int
    num_rows: int
    longest_row: int = 0
    world_size: int = 1
    deferred: list[Part] | None = None

    def all_reduce(self, device: torch.device) -> GlobalCounts:
        """The pool of all processes, where this one is a process's own. Every process must ask for it.

        Args:
            device: Where the scores are.

        Example:
            >>> GlobalCounts(4, 12, 4).all_reduce(torch.device("cpu")).num_marginal
            12
        """
        own = (self.num_joint, self.num_marginal, self.num_rows, self.longest_row)
        joint, marginal, rows, longest = zip(*all_gather_ints(own, device), strict=True)
        return GlobalCounts(sum(joint), sum(marginal), sum(rows), max(longest), world_size=len(joint))

    def sum(self, part: Tensor) -> Tensor:
        """The sum of each process's part, a scalar; where sums wait, the part itself."""
        return self._add(Part(part, log=False))

    def log_sum(self, part: Tensor) -> Tensor:
        """The same of parts that are logarithms, and so is the sum."""
        return self._add(Part(part, log=True))

    def reduce_deferred(self, found: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """The sums that wait, where ``found`` are their parts.

        Raises:
            ValueError: They are others: something was made of a part, as if it were the sum.
        """
        deferred, found = self.deferred or [], tuple(found)
        if len(deferred) != len(found) or any(part.value is not own for part, own in zip(deferred, found, strict=True)):
            raise ValueError(
                f"Got {len(found)} tensors of {len(deferred)} means that were asked for together: they are handed on "
                "as they are and in that order, since they are not yet those of all processes. Compute with what "
                "`together` returns."
            )
        return found if self.world_size == 1 else _all_reduce(deferred)

    def _add(self, part: Part) -> Tensor:
        if self.deferred is not None:
            self.deferred.append(part)
            return part.value
        return part.value if self.world_size == 1 else _all_reduce([part])[0]


def _all_reduce(parts: Sequence[Part]) -> tuple[Tensor, ...]:
    gathered = one_row_per_rank().gather_all(*(part.value.unsqueeze(0) for part in parts))
    return tuple(
        log_mean_exp(values, count=1) if part.log else values.sum()
        for part, values in zip(parts, gathered, strict=True)
    )
