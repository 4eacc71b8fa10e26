"""Collectives: the only place where processes talk to each other.

They run over all processes of the default group. Alone, each of them gives what it was given.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable

from lightning_mi.numerics import upcast


class Share(NamedTuple):
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
            >>> Share((2,)).gather(torch.tensor([1.0, 2.0]))
            tensor([1., 2.])
        """
        return _gather_rows(rows, self.counts, self.rank) if self.pooled else rows


def world_size() -> int:
    """How many processes there are.

    Example:
        >>> world_size()
        1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def exchange(numbers: Sequence[int], device: torch.device) -> list[tuple[int, ...]]:
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
    tensor = torch.tensor(own, dtype=torch.int64, device=device)
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor)
    return [tuple(numbers) for numbers in torch.stack(parts).tolist()]


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether any process says so. Every process must call it.

    Example:
        >>> any_process(True, torch.device("cpu"))
        True
    """
    return any(said for (said,) in exchange([int(flag)], device))


def refuse_together(problem: Exception | None, device: torch.device) -> None:
    """Raise on all processes what some found wrong in their share: none waits for one that has ended.

    Every process must call it.

    Args:
        problem: What is wrong on this process, or None.
        device: As in :func:`exchange`.

    Raises:
        Exception: The problem; a ValueError where only others have one.

    Example:
        >>> refuse_together(None, torch.device("cpu"))
    """
    raise_any(problem, exchange([problem is not None], device))


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


def share_of(numbers: Sequence[tuple[int, ...]]) -> Share:
    """The share of this process, where the first of :func:`exchange`'s numbers counts its rows.

    Example:
        >>> share_of([(3, 1)]).total
        3
    """
    return Share(tuple(own[0] for own in numbers), dist.get_rank() if len(numbers) > 1 else 0)


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
    tensor = tensor.unsqueeze(0)
    return tensor if world_size() == 1 else _gather_rows(tensor, (1,) * world_size(), dist.get_rank())


@torch.no_grad()
def average_(tensor: Tensor) -> Tensor:
    """Replace a tensor by its mean over all processes, in place and without gradient; alone, it stays as it is.

    Every process must call it with the same shape.

    Example:
        >>> average_(torch.tensor(2.0))
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
    count = sum(number for (number,) in exchange([len(values)], values.device))
    mean = gather(values.sum()).sum(dim=0) / count
    squares = gather((values - mean).square().sum()).sum(dim=0)
    return (squares / (count - 1)).sqrt() if count > 1 else torch.full_like(squares, torch.nan)


def own_generator(device: torch.device) -> torch.Generator | None:
    """Randomness for a step that differs between processes, though they may all have been seeded alike.

    Returns:
        A generator that follows from the global one and from the rank; alone None, which stands for the global one.

    Example:
        >>> torch.randperm(1, generator=own_generator(torch.device("cpu")))
        tensor([0])
    """
    if world_size() == 1:
        return None
    # 32 bits are what a generator on the CPU keeps of its seed.
    drawn = int(torch.randint(2**32 // world_size(), ()))
    return torch.Generator(device).manual_seed(drawn * world_size() + dist.get_rank())


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


class _GatherRows(torch.autograd.Function):
    """All-gather, whose transpose is: sum over the processes, then take one's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        most = max(counts)
        if len(rows) < most:  # A collective takes equal shapes.
            rows = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in counts]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # A copy: others may hold the same gradient. Half precision would round each of the partial sums.
        total = upcast(gradient).clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        start = sum(ctx.counts[: ctx.rank])
        return total[start : start + ctx.counts[ctx.rank]].to(gradient.dtype), None, None


def _gather_rows(rows: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
    gathered: Tensor = _GatherRows.apply(rows, counts, rank)
    return gathered
