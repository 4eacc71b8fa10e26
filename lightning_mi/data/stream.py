"""Endless synthetic data that can be interrupted: every batch is a pure function of (seed, split, step).

Nothing is remembered between batches, so workers, ranks and resumed runs need no state to agree: whoever asks for step
k gets the batch of step k.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal, final

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lightning_mi._compat import batches_done
from lightning_mi.data.sigterm_workers import obey_parent_alone
from lightning_mi.utilities.checks import check_whole

Split = Literal["train", "val", "test"]
Batch = tuple[Tensor, ...]
DrawBatch = Callable[[int, int, torch.Generator], Batch]
"""Draws the batch of a training step: (step, number of rows, source of randomness) -> tensors with that many rows.

It must be picklable, since worker processes get a copy of it.
"""

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
MAX_STEP = 2**32 // len(_SPLITS)


def batch_generator(seed: int, split: Split, step: int) -> torch.Generator:
    """The source of randomness of one batch: a fresh CPU generator that depends on nothing but its arguments.

    Two batches of the same seed never share a generator.

    Args:
        seed: Any integer >= 0.
        split: ``train``, ``val`` or ``test``.
        step: The batch's index, from 0 to about 1.4 thousand million.

    Raises:
        ValueError: If ``seed`` is negative or ``step`` out of range.

    Example:
        >>> torch.equal(*(torch.randn(3, generator=batch_generator(0, "train", 7)) for _ in range(2)))
        True
    """
    return torch.Generator().manual_seed(batch_seed(seed, split, step))


def batch_seed(seed: int, split: Split, step: int) -> int:
    """The number that seeds :func:`batch_generator`, for a generator that exists already; arguments and errors alike.

    Example:
        >>> batch_seed(0, "train", 7) == batch_generator(0, "train", 7).initial_seed()
        True
    """
    check_at_least("seed", seed, 0)
    if not 0 <= step < MAX_STEP:
        raise ValueError(f"step={step} is outside the stream's range 0 to {MAX_STEP - 1}.")
    # torch's CPU generator keeps only 32 bits of its seed, so a hash of all three numbers would give two of 20,000
    # batches the same seed in one run of twenty. Scrambling the index with a bijection cannot.
    index = len(_SPLITS) * step + _SPLITS.index(split)
    return _scramble(_scramble(index) ^ _base(seed))


@lru_cache
def _base(seed: int) -> int:
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _scramble(value: int) -> int:
    """The finalizer of MurmurHash3 (Appleby, public domain): a bijection of 32-bit integers that mixes all bits."""
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16


@final
class BatchStream(IterableDataset[Batch]):
    """Whole batches ``start``, ``start + 1``, ..., for ``DataLoader(..., batch_size=None)``.

    With W workers, worker w draws every W-th batch from w on, which the loader's round-robin puts back in order. Each
    rank draws the global batch of ``batch_size * world_size`` rows and keeps its own contiguous slice: one rank with
    batches of 64 and two ranks with batches of 32 see the same data.

    Args:
        draw: Draws a batch; see :data:`DrawBatch`.
        seed: Chooses the stream.
        split: ``train``, ``val`` or ``test``: three unrelated streams.
        batch_size: N, the rows of a batch on this rank.
        num_batches: How many batches to yield.
        start: Index of the first batch.
        law_step: The training step passed to ``draw``; by default each batch's own index.
        rank: This process's place among ``world_size``.
        world_size: Number of processes that share each global batch.

    Example:
        >>> def draw(step, num_rows, generator):
        ...     return (torch.rand(num_rows, generator=generator),)
        >>> whole = BatchStream(draw, seed=0, split="train", batch_size=4, num_batches=2)
        >>> half = BatchStream(draw, seed=0, split="train", batch_size=2, num_batches=2, rank=1, world_size=2)
        >>> torch.equal(list(whole)[1][0][2:], list(half)[1][0])
        True
    """

    def __init__(
        self,
        draw: DrawBatch,
        *,
        seed: int,
        split: Split,
        batch_size: int,
        num_batches: int,
        start: int = 0,
        law_step: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.draw = draw
        self.seed = seed
        self.split = split
        self.batch_size = batch_size
        self.num_batches = num_batches
        self.start = start
        self.law_step = law_step
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        offset, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for step in range(self.start + offset, self.start + self.num_batches, stride):
            yield self.batch(step)

    def batch(self, step: int) -> Batch:
        """This rank's rows of batch ``step``."""
        generator = batch_generator(self.seed, self.split, step)
        law_step = step if self.law_step is None else self.law_step
        rows = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        whole = self.draw(law_step, self.batch_size * self.world_size, generator)
        return tuple(part[rows].contiguous() for part in whole)


@final
class StreamLoader:
    """The loader that a data module hands to the Trainer: a :class:`BatchStream` that goes on where training stands.

    Training batches are numbered through all epochs, so each is fresh, and start from the number already trained on:
    after a resume, from the first batch that the interrupted run had not finished. An epoch is ``num_batches`` long
    whether resumed or not, because Lightning counts the batches done before the interruption too.

    It is not a ``DataLoader`` itself: Lightning would warn about an iterable dataset with a length.

    Args:
        draw: Draws a batch; see :data:`DrawBatch`.
        seed: Chooses the stream.
        split: ``train`` follows the trainer's progress; ``val`` and ``test`` always start at batch 0.
        batch_size: N, the rows of a batch on each rank.
        num_batches: Batches in an epoch.
        num_workers: Worker processes.
        trainer: Tells the progress, the rank and the number of ranks; None means one process and batch 0.
        law_step: Called at each start: the training step passed to ``draw``; by default each batch's own index.

    Example:
        >>> def draw(step, num_rows, generator):
        ...     return (torch.full((num_rows,), step),)
        >>> loader = StreamLoader(draw, seed=0, split="train", batch_size=2, num_batches=3)
        >>> len(loader), [batch[0].tolist() for batch in loader]
        (3, [[0, 0], [1, 1], [2, 2]])
    """

    def __init__(
        self,
        draw: DrawBatch,
        *,
        seed: int,
        split: Split,
        batch_size: int,
        num_batches: int,
        num_workers: int = 0,
        trainer: L.Trainer | None = None,
        law_step: Callable[[], int] | None = None,
    ) -> None:
        self._draw = draw
        self._seed = seed
        self._split = split
        self._batch_size = batch_size
        self._num_batches = num_batches
        self._num_workers = num_workers
        self._trainer = trainer
        self._law_step = law_step

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that no worker starts before the first batch is asked for: Lightning calls iter() more often
        # than it iterates. Progress is read at that moment too, each epoch anew.
        trainer = self._trainer
        stream = BatchStream(
            self._draw,
            seed=self._seed,
            split=self._split,
            batch_size=self._batch_size,
            num_batches=self._num_batches,
            start=batches_done(trainer) if self._split == "train" else 0,
            law_step=None if self._law_step is None else self._law_step(),
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )
        if not self._num_workers:  # A loader would do no more than pass the batches on.
            yield from stream
            return
        # Its own generator: a loader otherwise takes a number from the global stream whenever it starts.
        loader = DataLoader(
            stream,
            batch_size=None,
            num_workers=self._num_workers,
            collate_fn=_as_is,
            generator=torch.Generator().manual_seed(0),
            worker_init_fn=obey_parent_alone,
        )
        yield from loader

    def state_dict(self) -> dict[str, Any]:
        """Empty: Lightning's progress is the position. Its existence tells Lightning that mid-epoch resume is safe."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore; see :meth:`state_dict`."""


def check_at_least(name: str, value: int, minimum: int) -> None:
    """Check an integer argument.

    Raises:
        TypeError: If ``value`` is not a whole number.
        ValueError: If ``value`` is below ``minimum``.

    Example:
        >>> check_at_least("batch_size", 1, 2)
        Traceback (most recent call last):
        ValueError: Got batch_size=1: it must be at least 2.
    """
    check_whole(name, value, minimum)


def _as_is(batch: Any) -> Any:
    """Keep a batch a tuple: the default conversion would make a list of it."""
    return batch
