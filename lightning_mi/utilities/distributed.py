"""Collectives: the only place where processes talk to each other.

They run over all processes of the default group. Alone, each of them gives what it was given.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from lightning_mi.utilities.numerics import upcast


def world_size() -> int:
    """How many processes there are.

    Example:
        >>> world_size()
        1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def get_rank() -> int:
    """Which of them this one is.

    Example:
        >>> get_rank()
        0
    """
    return dist.get_rank() if world_size() > 1 else 0


def all_gather_ints(numbers: Sequence[int], device: torch.device) -> list[tuple[int, ...]]:
    """The integers of each process, in the order of the ranks. Every process gives as many.

    Its size is fixed, so it is safe before anything else is known of the other processes.

    Args:
        numbers: Of this process.
        device: Where the processes' tensors are: NCCL talks from accelerators only.

    Example:
        >>> exchange([3, 1], torch.device("cpu"))
        [(3, 1)]
    """
    own = tuple(numbers)
    if world_size() == 1:
        return [own]
    everywhere = all_gather_rows(torch.tensor([own], dtype=torch.int64, device=device))
    return [tuple(numbers) for numbers in everywhere.tolist()]


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether any process says so. Every process must call it.

    Example:
        >>> any_rank(True, torch.device("cpu"))
        True
    """
    return any(said for (said,) in all_gather_ints([int(flag)], device))


def raise_on_all_ranks(problem: Exception | None, device: torch.device) -> None:
    """Raise on all processes what some found wrong in their share: none waits for one that has ended.

    Every process must call it.

    Args:
        problem: What is wrong on this process, or None.
        device: As in :func:`exchange`.

    Raises:
        Exception: The problem; a ValueError where only others have one.

    Example:
        >>> raise_on_all_ranks(None, torch.device("cpu"))
    """
    raise_any(problem, all_gather_ints([problem is not None], device))


def raise_any(problem: Exception | None, told: Sequence[Sequence[int]]) -> None:
    """The same, where :func:`exchange` has told already: the first of each process's numbers says if it has one.

    Example:
        >>> raise_any(None, [(0, 8), (1, 8)])
        Traceback (most recent call last):
        ValueError: Process 1 refused its share of the batch, for a reason that it says itself, so this one ends too.
    """
    if problem is not None:
        raise problem
    for process, (has_one, *_) in enumerate(told):
        if has_one:
            raise ValueError(
                f"Process {process} refused its share of the batch, for a reason that it says itself, so this one "
                "ends too."
            )


@torch.no_grad()
def all_reduce_mean_(tensor: Tensor) -> Tensor:
    """Replace a tensor by its mean over all processes, in place and without gradient; alone, it stays as it is.

    Every process must call it with the same shape.

    Example:
        >>> all_reduce_mean_(torch.tensor(2.0))
        tensor(2.)
    """
    if world_size() > 1:
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


@torch.no_grad()
def standard_deviation(values: Tensor) -> Tensor:
    """The standard deviation of the values of all processes together, without gradient.

    Args:
        values: (K,), as many as a process has.

    Returns:
        A scalar, the same on every process; NaN where there are fewer than two values.

    Example:
        >>> standard_deviation(torch.tensor([1.0, 3.0]))
        tensor(1.4142)
    """
    values = upcast(values)
    count = sum(number for (number,) in all_gather_ints([len(values)], values.device))
    mean = all_gather_rows(values.sum().unsqueeze(0)).sum() / count
    squares = all_gather_rows((values - mean).square().sum().unsqueeze(0)).sum()
    return (squares / (count - 1)).sqrt() if count > 1 else torch.full_like(squares, torch.nan)


def rank_generator(device: torch.device) -> torch.Generator | None:
    """Randomness for a step that differs between processes, though they may all have been seeded alike.

    Returns:
        A generator that follows from the global one and from the rank; alone None, which stands for the global one.

    Example:
        >>> torch.randperm(1, generator=rank_generator(torch.device("cpu")))
        tensor([0])
    """
    if world_size() == 1:
        return None
    # 32 bits are what a generator on the CPU keeps of its seed.
    drawn = int(torch.randint(2**32 // world_size(), ()))
    return torch.Generator(device).manual_seed(drawn * world_size() + get_rank())


def gather_objects(own: Any) -> list[Any]:
    """What each process has, in the order of their ranks; for small things at rare moments, since it goes by pickle.

    Every process must call it.

    Example:
        >>> gather_objects({"rank": 0})
        [{'rank': 0}]
    """
    if world_size() == 1:
        return [own]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, own)
    return gathered


def destroy_process_group() -> None:
    """End the group, after this process's last word in it: gloo's threads may abort a process that exits with one.

    Example:
        >>> leave()
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def all_gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes without gradient, in the order of the ranks. Every process must give as many.

    Example:
        >>> all_gather_rows(torch.tensor([1, 2]))
        tensor([1, 2])
    """
    if world_size() == 1:
        return rows
    everything = rows.new_empty(world_size(), *rows.shape)
    dist.all_gather(list(everything), rows.contiguous())
    return everything.flatten(0, 1)


def reduce_scatter_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """This process's rows of the sum over the processes, without gradient: the transpose of gathering them.

    Args:
        rows: (M, ...) of which each process has all; what they hold may be overwritten.
        counts: How many of them belong to each process.

    Example:
        >>> reduce_scatter_rows(torch.tensor([1, 2]), (2,))
        tensor([1, 2])
    """
    if world_size() == 1:
        return rows
    rank = get_rank()
    if min(counts) == max(counts) and dist.get_backend() == "nccl":
        own = rows.new_empty(counts[rank], *rows.shape[1:])
        dist.reduce_scatter(own, list(rows.chunk(len(counts))))
        return own
    dist.all_reduce(rows)  # from which gloo makes the other
    return rows[sum(counts[:rank]) :][: counts[rank]]
