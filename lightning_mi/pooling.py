"""Sums over the pairs of a batch that several processes may share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_mi.distributed import exchange, gather
from lightning_mi.numerics import log_mean_exp


class Pool(NamedTuple):
    """How many pairs there are, and how the processes' parts of a sum add up.

    Attributes:
        num_joint: The number of joint pairs.
        num_marginal: The number of marginal pairs.
        num_rows: The number of rows of a score matrix.
        longest_row: How many pairs the longest row holds.
        copies: How many processes get the same sums.
    """

    num_joint: int
    num_marginal: int
    num_rows: int
    longest_row: int = 0
    copies: int = 1

    def over_processes(self, device: torch.device) -> Pool:
        """The pool of all processes, where this one is a process's own. Every process must ask for it.

        Args:
            device: Where the scores are.

        Example:
            >>> Pool(4, 12, 4).over_processes(torch.device("cpu")).num_marginal
            12
        """
        parts = [Pool(*own) for own in exchange(self, device)]
        return Pool(
            num_joint=sum(part.num_joint for part in parts),
            num_marginal=sum(part.num_marginal for part in parts),
            num_rows=sum(part.num_rows for part in parts),
            longest_row=max(part.longest_row for part in parts),
            copies=len(parts),
        )

    def sum(self, part: Tensor) -> Tensor:
        """The sum of each process's part, a scalar."""
        return part if self.copies == 1 else gather(part).sum(dim=0)

    def log_sum(self, part: Tensor) -> Tensor:
        """The same of parts that are logarithms, and so is the sum."""
        return part if self.copies == 1 else log_mean_exp(gather(part), count=1)
