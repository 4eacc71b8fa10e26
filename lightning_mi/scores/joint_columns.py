"""Column of the joint pair in each row of a score matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class JointColumns:
    """One joint pair in each row; all other columns, except excluded ones, are marginal pairs.

    Attributes:
        joint: (N,) the column of each row's joint pair.
        excluded: (N,) or (N, k) columns of each row that are not pairs, as of a sample with itself; none by default.
        diagonal: ``joint`` counts up from this number; None if it does not.

    Example:
        >>> JointColumns.of_diagonal(torch.zeros(3)).num_marginal(num_columns=3)
        6
    """

    joint: Tensor
    excluded: Tensor | None = None
    diagonal: int | None = None

    @property
    def index(self) -> Tensor | slice:
        """Index of the columns of the joint pairs: a slice, which copies nothing, if they are a diagonal."""
        return self.joint if self.diagonal is None else slice(self.diagonal, self.diagonal + len(self.joint))

    @property
    def non_marginal(self) -> Tensor:
        """(N, 1 + k) the columns of each row that are not marginal pairs."""
        joint = self.joint.unsqueeze(1)
        return joint if self.excluded is None else torch.column_stack([joint, self.excluded])

    @classmethod
    def of_diagonal(cls, x: Tensor, start: int = 0) -> JointColumns:
        """Column ``start + i`` for row i of ``x``."""
        return cls(torch.arange(start, start + len(x), device=x.device), diagonal=start)

    def row_count(self, num_columns: int) -> int:
        """Number of marginal and joint pairs in a row."""
        return num_columns - (self.non_marginal.shape[1] - 1)

    def num_marginal(self, num_columns: int) -> int:
        """Number of marginal pairs in all rows."""
        return len(self.joint) * (self.row_count(num_columns) - 1)
