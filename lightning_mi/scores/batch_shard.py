"""Rows of all processes, with gradient."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_mi.utilities.distributed import all_gather_rows, get_rank, reduce_scatter_rows, world_size
from lightning_mi.utilities.numerics import upcast


class BatchShard(NamedTuple):
    """Which rows of a batch over all processes this one holds: they follow each other in the order of the ranks.

    Attributes:
        counts: How many rows each process holds.
        rank: This process.
    """

    counts: tuple[int, ...]
    rank: int = 0

    @property
    def start(self) -> int:
        """The place of this process's first row among all."""
        return sum(self.counts[: self.rank])

    @property
    def total(self) -> int:
        """How many rows there are."""
        return sum(self.counts)

    @property
    def pooled(self) -> bool:
        """Whether there are other processes."""
        return len(self.counts) > 1

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, with gradient: what each of them makes of a row is summed.

        Args:
            rows: (N, ...) those of this process.

        Returns:
            (M, ...) for M = ``total``.

        Example:
            >>> BatchShard((2,)).gather(torch.tensor([1.0, 2.0]))
            tensor([1., 2.])
        """
        return self.gather_all(rows)[0]

    def gather_all(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """The same of several tensors at once, of any types, in one collective each way.

        Example:
            >>> BatchShard((2,)).gather_all(torch.tensor([1.0, 2.0]), torch.tensor([7, 8]))
            (tensor([1., 2.]), tensor([7, 8]))
        """
        if not self.pooled:
            return rows
        gathered: tuple[Tensor, ...] = _GatherRows.apply(self.counts, *rows)
        return gathered


def shard_of(counts: Sequence[int]) -> BatchShard:
    """The share of this process, where the processes hold so many rows.

    Example:
        >>> shard_of([3]).total
        3
    """
    return BatchShard(tuple(counts), get_rank() if len(counts) > 1 else 0)


def one_row_per_rank() -> BatchShard:
    """The share of this process in tensors of which every process has one row.

    Example:
        >>> one_row_per_rank()
        BatchShard(counts=(1,), rank=0)
    """
    return shard_of((1,) * world_size())


def gather(tensor: Tensor) -> Tensor:
    """Stack the tensors of all processes, the same on each, with gradient: what each makes of a tensor is summed.

    So where all processes compute the same loss from it, the mean of their parameters' gradients is its gradient.
    Every process must call it with the same shape.

    Returns:
        (W, ...) for W processes.

    Example:
        >>> gather(torch.tensor([1.0, 2.0]))
        tensor([[1., 2.]])
    """
    return one_row_per_rank().gather(tensor.unsqueeze(0))


class _Kind(NamedTuple):
    """What the rows of a tensor are like."""

    dtype: torch.dtype
    shape: torch.Size

    @property
    def width(self) -> int:
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        return self.dtype.is_floating_point


class _GatherRows(torch.autograd.Function):
    """All-gather, whose transpose is: sum over the processes, then take one's own rows.

    Several tensors travel side by side, as bytes: what is gathered is what was given, whatever the types.
    """

    @staticmethod
    def forward(ctx: Any, counts: tuple[int, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.counts, ctx.kinds = counts, [_Kind(t.dtype, t.shape[1:]) for t in tensors]
        ctx.device = tensors[0].device
        ctx.set_materialize_grads(False)
        packed = torch.cat([_flat(t).contiguous().view(torch.uint8) for t in tensors], dim=1)
        most = max(counts)
        if len(packed) < most:  # A collective takes equal shapes.
            packed = torch.cat([packed, packed.new_zeros(most - len(packed), packed.shape[1])])
        everything = all_gather_rows(packed)
        if min(counts) < most:
            everything = torch.cat([everything[rank * most :][:count] for rank, count in enumerate(counts)])
        columns = torch.split(everything, [kind.width * kind.dtype.itemsize for kind in ctx.kinds], dim=1)
        rows = tuple(
            part.contiguous().view(kind.dtype).view(-1, *kind.shape)
            for part, kind in zip(columns, ctx.kinds, strict=True)
        )
        ctx.mark_non_differentiable(*(part for part in rows if not part.is_floating_point()))
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        pairs = [pair for pair in zip(gradients, ctx.kinds, strict=True) if pair[1].floating]
        # What this process makes nothing of, of any of them, another one may: it has to hear from all. Half precision
        # would round each of the partial sums.
        total = sum(ctx.counts)
        parts = [
            torch.zeros(total, kind.width, dtype=kind.dtype, device=ctx.device) if gradient is None else _flat(gradient)
            for gradient, kind in pairs
        ]
        summed = reduce_scatter_rows(torch.cat([upcast(part) for part in parts], dim=1), ctx.counts)
        own = iter(torch.split(summed, [kind.width for _, kind in pairs], dim=1))
        return None, *(
            _own_gradient(next(own), gradient, kind) if kind.floating else None
            for gradient, kind in zip(gradients, ctx.kinds, strict=True)
        )


def _own_gradient(rows: Tensor, given: Tensor | None, kind: _Kind) -> Tensor | None:
    # Nobody makes anything of it: nothing more is to be computed. An accelerator would have to be waited for.
    if given is None and rows.device.type == "cpu" and not rows.any():
        return None
    return rows.to(kind.dtype).reshape(-1, *kind.shape)


def _flat(rows: Tensor) -> Tensor:
    return rows.reshape(len(rows), math.prod(rows.shape[1:]))
