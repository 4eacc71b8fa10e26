"""Checks of a batch before its pairs are scored, on this rank or on all ranks."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_mi.scores.batch_shard import BatchShard
from lightning_mi.utilities.view_checks import check_tensors

_DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


class ShardHeader(NamedTuple):
    """Shapes and dtypes of a rank's views, exchanged in one all-gather of integers before any other collective.

    Attributes:
        has_problem: The rank's shard has an error.
        rows: The length of each view.
        widths: The numbers in a row of each view.
        dtypes: The dtype of each view, as an index.
    """

    has_problem: bool
    rows: tuple[int, ...]
    widths: tuple[int, ...]
    dtypes: tuple[int, ...]

    @classmethod
    def of(cls, views: Sequence[Tensor], problem: Exception | None) -> "ShardHeader":
        rows, widths = tuple(map(len, views)), tuple(math.prod(view.shape[1:]) for view in views)
        return cls(problem is not None, rows, widths, tuple(_dtype_index(view.dtype) for view in views))

    def to_ints(self) -> list[int]:
        return [int(self.has_problem), *self.rows, *self.widths, *self.dtypes]

    @classmethod
    def from_ints(cls, ints: Sequence[int]) -> "ShardHeader":
        has_problem, *rest = ints
        n = len(rest) // 3
        return cls(bool(has_problem), tuple(rest[:n]), tuple(rest[n : 2 * n]), tuple(rest[2 * n :]))


def check_headers(ranks: Sequence[ShardHeader]) -> None:
    """Check that the views of all ranks can be paired.

    Raises:
        ValueError: Views of one pair differ in length, or the views of ranks differ in width or dtype.
    """
    for rank, header in enumerate(ranks):
        on_rank = f" on rank {rank}" if len(ranks) > 1 else ""
        for x, y, kind, name in zip(
            header.rows[::2], header.rows[1::2], ("joint", "marginal"), ("", "marginal "), strict=False
        ):
            if x != y:
                raise ValueError(
                    f"Got {x} {name}x and {y} {name}y{on_rank}: row i of both is one {kind} pair, so both have the "
                    "same length."
                )
        if header.widths != ranks[0].widths:
            raise ValueError(
                f"Got views of {list(header.widths)} numbers a row{on_rank} and of {list(ranks[0].widths)} on rank 0: "
                "samples of all ranks are paired, so they have the same width. Use the same encoders on all ranks."
            )
        if header.dtypes != ranks[0].dtypes:
            raise ValueError(
                f"Got views of another dtype{on_rank} than on rank 0: samples of all ranks are paired, so they have "
                "the same dtype. Use the same precision on all ranks."
            )


def check_num_views(views: tuple[Any, ...], *names: str, pairing: str) -> None:
    """Check that there is one view for each name, and that each, except labels, is a tensor with rows.

    Raises:
        TypeError: A view is not a tensor, or the views are in one tuple.
        ValueError: The number of views is wrong, or a view has no dimension.
    """
    if len(views) != len(names):
        if len(views) == 1 and isinstance(views[0], list | tuple):
            raise TypeError(
                f"Got a {type(views[0]).__name__} of {len(views[0])}: {pairing} takes {len(names)} separate views, "
                f"{', '.join(names)}. Unpack it: loss(*batch)."
            )
        raise ValueError(
            f"Got {len(views)} view{'s' * (len(views) != 1)} of the batch: {pairing} takes {len(names)}, "
            f"{', '.join(names)}. Choose another pairing, or pass these views (a module's `unpack_batch` returns them)."
        )
    check_tensors({name: view for name, view in zip(names, views, strict=True) if name != "labels"})


def check_batch_size(shard: BatchShard, training: bool) -> None:
    """Raise a ValueError if a training batch has fewer than two samples, or any other batch none.

    In evaluation the last batch may have one sample: a joint pair without marginal pairs.
    """
    check_not_empty(shard)
    if training and shard.total < 2:
        raise ValueError(
            f"Got a batch of {shard.total}: marginal pairs combine different samples, so a batch has two or more. "
            "Raise the batch size, or drop the last, smaller batch: DataLoader(..., drop_last=True)."
        )


def check_not_empty(shard: BatchShard) -> None:
    """Raise a ValueError if a batch has no samples, on any rank."""
    if shard.total == 0:
        raise ValueError("Got an empty batch: it has no pairs. Skip empty batches.")


def _dtype_index(dtype: torch.dtype) -> int:
    return _DTYPES.index(dtype) if dtype in _DTYPES else len(_DTYPES)
