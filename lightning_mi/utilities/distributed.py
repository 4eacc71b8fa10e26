"""Collectives over all ranks of the default process group.

Only this module and :mod:`lightning_mi.utilities.point_to_point` call ``torch.distributed``. Without
a process group, or with one rank, every function returns its input and communicates nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from lightning_mi.utilities.numerics import upcast

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def single_process() -> Iterator[None]:
    """Context manager: this process computes as if it were the only one, whether or not there is a process group.

    Example:
        >>> with single_process():
        ...     world_size()
        1
    """
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def world_size() -> int:
    """Number of ranks; 1 without a process group.

    Example:
        >>> world_size()
        1
    """
    if _ALONE.get() or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def get_rank() -> int:
    """This process's rank; 0 without a process group.

    Example:
        >>> get_rank()
        0
    """
    return dist.get_rank() if world_size() > 1 else 0


def all_gather_ints(numbers: Sequence[int], device: torch.device) -> list[tuple[int, ...]]:
    """All-gather integers. Every rank must pass the same number of them.

    The message size depends only on the number of integers, so no earlier exchange between ranks is needed.

    Args:
        numbers: This rank's integers.
        device: The device of the ranks' tensors; NCCL needs an accelerator.

    Returns:
        One tuple per rank, in rank order.

    Example:
        >>> all_gather_ints([3, 1], torch.device("cpu"))
        [(3, 1)]
    """
    local = tuple(numbers)
    if world_size() == 1:
        return [local]
    gathered = all_gather_rows(torch.tensor([local], dtype=torch.int64, device=device))
    return [tuple(row) for row in gathered.tolist()]


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is True on any rank. Every rank must call it.

    Example:
        >>> any_rank(True, torch.device("cpu"))
        True
    """
    return any(gathered for (gathered,) in all_gather_ints([int(flag)], device))


def raise_on_all_ranks(problem: Exception | None, device: torch.device) -> None:
    """Raise on every rank if any rank has an error, so that no rank blocks in a later collective.

    Every rank must call it.

    Args:
        problem: This rank's error, or None.
        device: As in :func:`all_gather_ints`.

    Raises:
        Exception: This rank's error; a ValueError if only other ranks have one.

    Example:
        >>> raise_on_all_ranks(None, torch.device("cpu"))
    """
    raise_any(problem, all_gather_ints([problem is not None], device))


def raise_any(problem: Exception | None, gathered: Sequence[Sequence[int]]) -> None:
    """Raise as :func:`raise_on_all_ranks` does, from error flags that were gathered already.

    Args:
        problem: This rank's error, or None.
        gathered: The integers of each rank, as :func:`all_gather_ints` returns them; the first one is 1 if the rank has
            an error, else 0.

    Example:
        >>> raise_any(None, [(0, 8), (1, 8)])
        Traceback (most recent call last):
        ValueError: Rank 1 rejected its shard of the batch (see its log for the reason); stopping this rank too.
    """
    if problem is not None:
        raise problem
    for rank, (has_error, *_) in enumerate(gathered):
        if has_error:
            raise ValueError(
                f"Rank {rank} rejected its shard of the batch (see its log for the reason); stopping this rank too."
            )


@torch.no_grad()
def all_reduce_mean_(tensor: Tensor) -> Tensor:
    """All-reduce a tensor to its mean over ranks, in place and without gradient.

    Every rank must call it with the same shape.

    Example:
        >>> all_reduce_mean_(torch.tensor(2.0))
        tensor(2.)
    """
    if world_size() > 1:
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


@torch.no_grad()
def average_gradients_(parameters: Sequence[Tensor]) -> None:
    """Average the gradients of parameters over ranks, in place, in one message, as DDP does.

    Every rank must call it, with gradients of the same parameters.

    Example:
        >>> average_gradients_([torch.zeros(2)])
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if world_size() == 1 or not gradients:
        return
    mean = all_reduce_mean_(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, torch.split(mean, [gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def broadcast_(tensors: Sequence[Tensor]) -> None:
    """Copy the tensors of rank 0 to all ranks, in place. Every rank must call it with the same shapes.

    Example:
        >>> broadcast_([torch.zeros(2)])
    """
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


@torch.no_grad()
def standard_deviation(values: Tensor) -> Tensor:
    """Standard deviation (with Bessel's correction) of the values of all ranks, without gradient.

    Args:
        values: (K,); K may differ between ranks.

    Returns:
        A scalar, the same on every rank; NaN for fewer than two values.

    Example:
        >>> standard_deviation(torch.tensor([1.0, 3.0]))
        tensor(1.4142)
    """
    values = upcast(values)
    count = sum(length for (length,) in all_gather_ints([len(values)], values.device))
    mean = all_gather_rows(values.sum().unsqueeze(0)).sum() / count
    squares = all_gather_rows((values - mean).square().sum().unsqueeze(0)).sum()
    return (squares / (count - 1)).sqrt() if count > 1 else torch.full_like(squares, torch.nan)


def rank_generator(device: torch.device) -> torch.Generator | None:
    """Random generator that differs between ranks, though all may have the same global seed.

    Returns:
        A generator seeded from the global one and the rank; None with one rank: torch then uses the global one.

    Example:
        >>> torch.randperm(1, generator=rank_generator(torch.device("cpu")))
        tensor([0])
    """
    if world_size() == 1:
        return None
    # A CPU generator uses 32 bits of its seed.
    seed = int(torch.randint(2**32 // world_size(), ()))
    return torch.Generator(device).manual_seed(seed * world_size() + get_rank())


def gather_objects(obj: Any) -> list[Any]:
    """All-gather one picklable object per rank, in rank order. Every rank must call it.

    For small objects at rare moments, because pickling is slow.

    Example:
        >>> gather_objects({"rank": 0})
        [{'rank': 0}]
    """
    if world_size() == 1:
        return [obj]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, obj)
    return gathered


def destroy_process_group() -> None:
    """Destroy the process group, if there is one: gloo's threads may abort a process that exits with it.

    Example:
        >>> destroy_process_group()
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def all_gather_rows(rows: Tensor) -> Tensor:
    """All-gather without gradient, concatenated in rank order. Every rank must pass the same shape.

    Args:
        rows: (N, ...).

    Returns:
        (W * N, ...) for W ranks.

    Example:
        >>> all_gather_rows(torch.tensor([1, 2]))
        tensor([1, 2])
    """
    if world_size() == 1:
        return rows
    gathered = rows.new_empty(world_size(), *rows.shape)
    dist.all_gather(list(gathered), rows.contiguous())
    return gathered.flatten(0, 1)


def reduce_scatter_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Reduce-scatter without gradient: sum over ranks; each rank receives its rows of the sum.

    Args:
        rows: (M, ...) on every rank; may be overwritten.
        counts: The number of rows of each rank, M in total.

    Returns:
        (counts[rank], ...).

    Example:
        >>> reduce_scatter_rows(torch.tensor([1, 2]), (2,))
        tensor([1, 2])
    """
    if world_size() == 1:
        return rows
    rank = get_rank()
    if min(counts) == max(counts) and dist.get_backend() == "nccl":
        scattered = rows.new_empty(counts[rank], *rows.shape[1:])
        dist.reduce_scatter(scattered, list(rows.chunk(len(counts))))
        return scattered
    # gloo implements reduce-scatter by all-reduce, and reduce-scatter needs equal counts.
    dist.all_reduce(rows)
    return rows[sum(counts[:rank]) :][: counts[rank]]
