"""Where the joint pair lies in each row of a matrix of scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class JointColumns:
    """One joint pair in each row; all other columns, but one that may be left out, are marginal pairs.

    Attributes:
        joint: (N,) the column of each row's joint pair.
        excluded: (N,) a column of each row that is no pair, as of a sample with itself; none by default.
        span: The columns of the joint pairs as a slice, where they follow each other.

    Example:
        >>> JointColumns.of_diagonal(torch.zeros(3)).num_marginal(num_columns=3)
        6
    """

    joint: Tensor
    excluded: Tensor | None = None
    span: slice | None = None

    @property
    def non_marginal(self) -> Tensor:
        """(N, 1 or 2) the columns of each row that are not marginal pairs."""
        return self.joint.unsqueeze(1) if self.excluded is None else torch.stack([self.joint, self.excluded], dim=1)

    @classmethod
    def of_diagonal(cls, x: Tensor, start: int = 0) -> JointColumns:
        """Those of the rows of ``x`` in order, from a column on."""
        span = slice(start, start + len(x))
        return cls(torch.arange(span.start, span.stop, device=x.device), span=span)

    def row_count(self, num_columns: int) -> int:
        """How many pairs there are in a row."""
        return num_columns - (self.excluded is not None)

    def num_marginal(self, num_columns: int) -> int:
        """How many marginal pairs there are in all rows."""
        return len(self.joint) * (self.row_count(num_columns) - 1)
