"""Numbers of pairs over all ranks, and sums over the pairs of all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.scores.batch_shard import one_row_per_rank
from lightning_mi.utilities.distributed import all_gather_ints, all_gather_rows
from lightning_mi.utilities.numerics import log_mean_exp


class GlobalCounts(NamedTuple):
    """Numbers of pairs and rows, of one rank or summed over all ranks.

    Attributes:
        num_joint: The number of joint pairs.
        num_marginal: The number of marginal pairs.
        num_rows: The number of rows of the score matrix.
        longest_row: The largest number of pairs in a row.
        world_size: The number of ranks in the sum.
        joint_weight: The sum of the weights of the joint pairs; None if all weigh 1.
    """

    num_joint: int
    num_marginal: int
    num_rows: int
    longest_row: int = 0
    world_size: int = 1
    joint_weight: float | None = None

    def all_reduce(self, device: torch.device) -> GlobalCounts:
        """Counts over all ranks, from the counts of each. Every rank must call it.

        Args:
            device: The device of the scores.

        Example:
            >>> GlobalCounts(4, 12, 4).all_reduce(torch.device("cpu")).num_marginal
            12
        """
        joint, marginal, rows, longest = zip(*all_gather_ints(self[:4], device), strict=True)
        weight = self.joint_weight
        if weight is not None:
            dtype = torch.float32 if device.type == "mps" else torch.float64
            weight = float(all_gather_rows(torch.tensor([[weight]], dtype=dtype, device=device)).sum())
        return GlobalCounts(sum(joint), sum(marginal), sum(rows), max(longest), len(joint), weight)


class PartialSum(NamedTuple):
    """One rank's part of a sum over ranks.

    Attributes:
        value: A scalar.
        is_log: The value is the logarithm of the part; the result is the logarithm of the sum.
    """

    value: Tensor
    is_log: bool = False


@final
@dataclass(frozen=True)
class RankSums:
    """Sums over the pairs of one rank or of all ranks.

    Attributes:
        counts: The numbers of pairs in the sums.
        deferred: Partial sums to reduce together, in one all-gather; None to reduce each at once.

    Example:
        >>> RankSums(GlobalCounts(4, 12, 4)).reduce(torch.tensor(2.0))
        tensor(2.)
    """

    counts: GlobalCounts
    deferred: list[PartialSum] | None = None

    def deferring(self) -> RankSums:
        """The same sums, deferred until :meth:`reduce_deferred`."""
        return RankSums(self.counts, [])

    def reduce(self, value: Tensor, is_log: bool = False) -> Tensor:
        """Sum over ranks; if sums are deferred, this rank's part, as a placeholder for the sum.

        Args:
            value: This rank's part, a scalar.
            is_log: Part and sum are logarithms.
        """
        part = PartialSum(value, is_log)
        if self.deferred is not None:
            self.deferred.append(part)
            return value
        return value if self.counts.world_size == 1 else all_reduce_sums([part])[0]

    def reduce_deferred(self, values: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Deferred sums over ranks.

        Args:
            values: The parts that :meth:`reduce` returned: all of them, in order, unchanged.

        Raises:
            ValueError: ``values`` are other tensors: a part was used as if it were the sum.
        """
        values, parts = tuple(values), self.deferred or []
        unchanged = len(values) == len(parts) and all(
            part.value is value for part, value in zip(parts, values, strict=True)
        )
        if not unchanged:
            raise ValueError(
                f"Got {len(values)} tensors for {len(parts)} means: within `together` a mean is not yet reduced over "
                "ranks. Return all means, unchanged and in order, and compute with the result of `together`."
            )
        return values if self.counts.world_size == 1 else all_reduce_sums(parts)


def all_reduce_sums(parts: Sequence[PartialSum]) -> tuple[Tensor, ...]:
    """Differentiable sums over ranks, with one all-gather for all parts.

    Example:
        >>> all_reduce_sums([PartialSum(torch.tensor(2.0)), PartialSum(torch.tensor(-1.0), is_log=True)])
        (tensor(2.), tensor(-1.))
    """
    gathered = one_row_per_rank().gather_all(*(part.value.unsqueeze(0) for part in parts))
    return tuple(
        log_mean_exp(values, count=1) if part.is_log else values.sum()
        for part, values in zip(parts, gathered, strict=True)
    )
