"""Differentiable all-gather of the rows of a sharded batch."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_mi.utilities.distributed import all_gather_rows, get_rank, reduce_scatter_rows, world_size
from lightning_mi.utilities.numerics import upcast


class BatchShard(NamedTuple):
    """This rank's rows of a batch over all ranks. Shards follow each other in rank order.

    Attributes:
        counts: The number of rows of each rank.
        rank: This rank.
    """

    counts: tuple[int, ...]
    rank: int = 0

    @property
    def start(self) -> int:
        """Index of this rank's first row in the batch."""
        return sum(self.counts[: self.rank])

    @property
    def total(self) -> int:
        """M, the number of rows of the batch."""
        return sum(self.counts)

    @property
    def pooled(self) -> bool:
        """Whether the batch has more than one shard."""
        return len(self.counts) > 1

    def repeat(self, times: int) -> "BatchShard":
        """The shard of a batch with several rows for each row of this one.

        Example:
            >>> BatchShard((2, 3), rank=1).repeat(2)
            BatchShard(counts=(4, 6), rank=1)
        """
        return BatchShard(tuple(times * count for count in self.counts), self.rank)

    def gather(self, rows: Tensor) -> Tensor:
        """Differentiable all-gather; backward sums each row's gradient over ranks (reduce-scatter).

        Args:
            rows: (N, ...) of this rank.

        Returns:
            (M, ...) of all ranks, in rank order.

        Example:
            >>> BatchShard((2,)).gather(torch.tensor([1.0, 2.0]))
            tensor([1., 2.])
        """
        return self.gather_all(rows)[0]

    def gather_all(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """As :meth:`gather`, for several tensors of any dtypes, with one collective in forward and one in backward.

        Example:
            >>> BatchShard((2,)).gather_all(torch.tensor([1.0, 2.0]), torch.tensor([7, 8]))
            (tensor([1., 2.]), tensor([7, 8]))
        """
        if not self.pooled:
            return rows
        gathered: tuple[Tensor, ...] = _AllGather.apply(self.counts, *rows)
        return gathered


def shard_of(counts: Sequence[int]) -> BatchShard:
    """This rank's shard of a batch, from the number of rows of each rank.

    Example:
        >>> shard_of([3]).total
        3
    """
    return BatchShard(tuple(counts), get_rank() if len(counts) > 1 else 0)


def one_row_per_rank() -> BatchShard:
    """This rank's shard of a batch with one row per rank.

    Example:
        >>> one_row_per_rank()
        BatchShard(counts=(1,), rank=0)
    """
    return shard_of((1,) * world_size())


def gather(tensor: Tensor) -> Tensor:
    """Differentiable all-gather of one tensor per rank, stacked in rank order; backward sums gradients over ranks.

    If all ranks compute the same loss from the result, the mean over ranks of the parameters' gradients is the gradient
    of that loss. Every rank must call it with the same shape.

    Returns:
        (W, ...) for W ranks.

    Example:
        >>> gather(torch.tensor([1.0, 2.0]))
        tensor([[1., 2.]])
    """
    return one_row_per_rank().gather(tensor.unsqueeze(0))


class _RowSpec(NamedTuple):
    """Dtype and shape of one row of a tensor."""

    dtype: torch.dtype
    shape: torch.Size

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.numel * self.dtype.itemsize


class _AllGather(torch.autograd.Function):
    """All-gather of rows; its transpose, in backward, is reduce-scatter.

    Forward sends all tensors side by side as bytes, so that values arrive unchanged whatever their dtypes.
    """

    @staticmethod
    def forward(ctx: Any, counts: tuple[int, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.counts, ctx.device = counts, tensors[0].device
        ctx.specs = [_RowSpec(tensor.dtype, tensor.shape[1:]) for tensor in tensors]
        ctx.set_materialize_grads(False)
        packed = torch.cat([_flatten(tensor).contiguous().view(torch.uint8) for tensor in tensors], dim=1)
        gathered = _all_gather_uneven(packed, counts)
        chunks = torch.split(gathered, [spec.num_bytes for spec in ctx.specs], dim=1)
        rows = tuple(
            chunk.contiguous().view(spec.dtype).view(-1, *spec.shape)
            for chunk, spec in zip(chunks, ctx.specs, strict=True)
        )
        ctx.mark_non_differentiable(*(tensor for tensor in rows if not tensor.is_floating_point()))
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        differentiable = [
            (index, spec, grad)
            for index, (spec, grad) in enumerate(zip(ctx.specs, grad_output, strict=True))
            if spec.dtype.is_floating_point
        ]
        # A rank without a gradient sends zeros: the other ranks wait for it in the collective. Gradients are
        # summed in float32 or wider, because half precision would round each partial sum.
        local = [
            torch.zeros(sum(ctx.counts), spec.numel, dtype=spec.dtype, device=ctx.device)
            if grad is None
            else _flatten(grad)
            for _, spec, grad in differentiable
        ]
        summed = reduce_scatter_rows(torch.cat([upcast(grad) for grad in local], dim=1), ctx.counts)
        chunks = torch.split(summed, [spec.numel for _, spec, _ in differentiable], dim=1)
        grads: list[Tensor | None] = [None] * len(ctx.specs)
        for (index, spec, grad), chunk in zip(differentiable, chunks, strict=True):
            # If no rank used the rows, None stops autograd here, as with one rank. On an accelerator the check would
            # be a host-device sync.
            unused = grad is None and chunk.device.type == "cpu" and not chunk.any()
            grads[index] = None if unused else chunk.to(spec.dtype).reshape(-1, *spec.shape)
        return None, *grads


def _all_gather_uneven(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """All-gather a different number of rows from each rank: pad to the largest, then drop the padding."""
    largest = max(counts)
    padding = rows.new_zeros(largest - len(rows), rows.shape[1])
    gathered = all_gather_rows(torch.cat([rows, padding]))
    if min(counts) == largest:
        return gathered
    return torch.cat([gathered[rank * largest :][:count] for rank, count in enumerate(counts)])


def _flatten(rows: Tensor) -> Tensor:
    return rows.reshape(len(rows), math.prod(rows.shape[1:]))
