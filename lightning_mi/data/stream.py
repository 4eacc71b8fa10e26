"""Endless synthetic data with exact resume: every batch is a pure function of (seed, split, step).

There is no state between batches, so the batch of step k is the same in every worker, on every rank and after a resume.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal, final

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lightning_mi._compat.lightning_loops import batches_done
from lightning_mi.data.sigterm_workers import ignore_job_signals
from lightning_mi.utilities.checks import check_whole

Split = Literal["train", "val", "test"]
Batch = tuple[Tensor, ...]
DrawBatch = Callable[[int, int, torch.Generator], Batch]
"""Draws the batch of a training step: (step, number of rows, generator) -> tensors with that many rows.

It must be picklable, because worker processes get a copy.
"""

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
MAX_STEP = 2**32 // len(_SPLITS)


def batch_generator(seed: int, split: Split, step: int) -> torch.Generator:
    """New CPU generator of one batch, seeded by its arguments.

    Different batches of the same seed have different generators.

    Args:
        seed: Any integer >= 0.
        split: ``train``, ``val`` or ``test``.
        step: Index of the batch, from 0 to about 1.4e9.

    Raises:
        ValueError: If ``seed`` is negative or ``step`` out of range.

    Example:
        >>> torch.equal(*(torch.randn(3, generator=batch_generator(0, "train", 7)) for _ in range(2)))
        True
    """
    return torch.Generator().manual_seed(batch_seed(seed, split, step))


def batch_seed(seed: int, split: Split, step: int) -> int:
    """The seed of :func:`batch_generator`, with the same arguments and errors.

    Example:
        >>> batch_seed(0, "train", 7) == batch_generator(0, "train", 7).initial_seed()
        True
    """
    check_whole("seed", seed, 0)
    if not 0 <= step < MAX_STEP:
        raise ValueError(f"Got step={step}: the steps of a stream run from 0 to {MAX_STEP - 1}.")
    # torch's CPU generator uses only 32 bits of its seed. A hash of the three numbers could collide (for 20,000 batches
    # in one run of twenty); a bijection of the index cannot.
    index = len(_SPLITS) * step + _SPLITS.index(split)
    return _scramble(_scramble(index) ^ _base(seed))


@lru_cache
def _base(seed: int) -> int:
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _scramble(value: int) -> int:
    """Finalizer of MurmurHash3 (Appleby, public domain): a bijection of 32-bit integers that mixes all bits."""
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16


@final
class BatchStream(IterableDataset[Batch]):
    """Iterable dataset of whole batches ``start``, ``start + 1``, ..., for ``DataLoader(..., batch_size=None)``.

    With W workers, worker w draws every W-th batch, starting with w; the round-robin of the loader restores the order.
    Each rank draws the global batch of ``batch_size * world_size`` rows and returns its contiguous shard: two ranks
    with batches of 32 see the data of one rank with batches of 64.

    Args:
        draw: Draws a batch; see :data:`DrawBatch`.
        seed: Seed of the stream.
        split: ``train``, ``val`` or ``test``: three independent streams.
        batch_size: Rows N of a batch on this rank.
        num_batches: Number of batches.
        start: Index of the first batch.
        law_step: The training step passed to ``draw``; by default the index of the batch.
        rank: Rank of this process.
        world_size: Number of ranks, which share each global batch.

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
        """The shard of batch ``step`` on this rank."""
        generator = batch_generator(self.seed, self.split, step)
        law_step = step if self.law_step is None else self.law_step
        rows = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        global_batch = self.draw(law_step, self.batch_size * self.world_size, generator)
        return tuple(tensor[rows].contiguous() for tensor in global_batch)


@final
class StreamLoader:
    """Loader of a :class:`BatchStream` that starts with the first batch not trained on yet.

    Training batches are numbered over all epochs, so each is new. After a resume, the first one is the batch that the
    interrupted run had not finished. ``len`` is ``num_batches`` in a resumed epoch too, because Lightning counts the
    batches before the interruption.

    Not a subclass of ``DataLoader``: Lightning would warn about an iterable dataset with a length.

    Args:
        draw: Draws a batch; see :data:`DrawBatch`.
        seed: Seed of the stream.
        split: ``train`` starts at the progress of the trainer; ``val`` and ``test`` start at batch 0.
        batch_size: Rows N of a batch on each rank.
        num_batches: Number of batches in an epoch.
        num_workers: Worker processes.
        trainer: Gives progress, rank and world size; None means one rank and batch 0.
        law_step: Called at each iteration; returns the training step passed to ``draw``. By default each batch's index.

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
        # A generator function: workers start and the progress is read at the first batch, not at iter(), which
        # Lightning calls more often than it iterates.
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
        if not self._num_workers:  # a DataLoader would only pass the batches on
            yield from stream
            return
        # With its own generator: otherwise each iteration of a DataLoader draws from the global generator.
        loader = DataLoader(
            stream,
            batch_size=None,
            num_workers=self._num_workers,
            collate_fn=_as_is,
            generator=torch.Generator().manual_seed(0),
            worker_init_fn=ignore_job_signals,
        )
        yield from loader

    def state_dict(self) -> dict[str, Any]:
        """Empty, because Lightning's progress is the position. The method marks mid-epoch resume as safe."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore; see :meth:`state_dict`."""


def _as_is(batch: Any) -> Any:
    """Identity: the default collation would turn the tuple into a list."""
    return batch
