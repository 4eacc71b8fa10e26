"""Batches of a finite dataset with exact resume: the samples of batch k are a pure function of (seed, k).

A sample has the key ``pass * num_samples + index``, so that a random transform can depend on the sample and the pass.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, final

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_mi._compat.lightning_loops import batches_done
from lightning_mi.data.sigterm_workers import ignore_job_signals
from lightning_mi.data.stream import batch_generator


class AbstractBatches(ABC):
    """The batches of one rank, as lists of keys."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, step: int) -> list[int]:
        """The keys of batch ``step``."""


@final
class ShuffledBatches(AbstractBatches):
    """Endless training batches: passes over the data, each in a new random order, with whole batches only.

    Each rank takes a contiguous shard of the global batch of ``batch_size * world_size`` samples: two ranks with
    batches of 32 train on the samples of one rank with batches of 64. The incomplete last global batch of a pass is
    dropped; it has other samples in each pass.

    Args:
        num_samples: Samples in the dataset.
        batch_size: Samples N of a batch on each rank.
        seed: Seed of the orders.
        rank: Rank of this process.
        world_size: Number of ranks, which share each global batch.

    Raises:
        ValueError: If there are not enough samples for one global batch.

    Example:
        >>> batches = ShuffledBatches(5, 2, seed=0)
        >>> len(batches), sorted(key // 5 for step in range(4) for key in batches.batch(step))
        (2, [0, 0, 0, 0, 1, 1, 1, 1])
    """

    def __init__(self, num_samples: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._order: tuple[int, Tensor] | None = None
        if len(self) == 0:
            raise ValueError(
                f"Got batch_size={batch_size} on {world_size} rank(s): a global batch needs {batch_size * world_size} "
                f"training samples, and there are {num_samples}. Choose a smaller batch_size."
            )

    def __len__(self) -> int:
        """Number of batches in a pass."""
        return self.num_samples // (self.batch_size * self.world_size)

    def batch(self, step: int) -> list[int]:
        """The keys of training batch ``step``, counted over all passes."""
        pass_index, position = divmod(step, len(self))
        if self._order is None or self._order[0] != pass_index:
            generator = batch_generator(self.seed, "train", pass_index)
            self._order = pass_index, torch.randperm(self.num_samples, generator=generator)
        start = (position * self.world_size + self.rank) * self.batch_size
        indices = self._order[1][start : start + self.batch_size]
        return (indices + pass_index * self.num_samples).tolist()


@final
class FixedBatches(AbstractBatches):
    """Evaluation batches: each sample once, on one rank, in a fixed order.

    The order is shuffled, because batches of a dataset sorted by class would contain pairs of one class only. Ranks are
    not padded to equal length, because repeated samples would bias means. A last batch of one sample is dropped,
    because it has no marginal pair; ``keep_all`` keeps it.

    Args:
        num_samples: Samples in the dataset.
        batch_size: Samples N of a batch on each rank.
        rank: Rank of this process.
        world_size: Number of ranks, which share the samples.
        keep_all: Whether the last batch may have a single sample.

    Example:
        >>> [len(FixedBatches(7, 3, keep_all=keep)) for keep in (False, True)]
        [2, 3]
    """

    def __init__(
        self, num_samples: int, batch_size: int, *, rank: int = 0, world_size: int = 1, keep_all: bool = False
    ) -> None:
        order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(0))
        self._keys = order[rank::world_size]
        if len(self._keys) % batch_size == 1 and not keep_all:
            self._keys = self._keys[:-1]
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._keys) // self._batch_size)

    def batch(self, step: int) -> list[int]:
        """The keys of batch ``step``, which are the indices of its samples."""
        return self._keys[step * self._batch_size : (step + 1) * self._batch_size].tolist()


@final
class BatchLoader:
    """Loader of the batches of a dataset, starting with the first one that a trainer has not trained on.

    Not a subclass of ``DataLoader``, so that Lightning neither replaces its order nor pads it on several ranks.

    Args:
        dataset: Dataset whose ``__getitems__`` maps a list of keys to a batch.
        batches: The keys of each batch.
        num_workers: Number of worker processes.
        pin_memory: Whether to copy batches to pinned memory.
        resume: Trainer whose progress gives the first batch; None starts with batch 0.

    Example:
        >>> from lightning_mi.data.images.sources import MemoryImages
        >>> from lightning_mi.data.images.views import ImageViews
        >>> images = MemoryImages(torch.zeros(7, 1, 8, 8, dtype=torch.uint8), torch.arange(7))
        >>> loader = BatchLoader(ImageViews(images), FixedBatches(7, 3))
        >>> [len(labels) for _, labels in loader]
        [3, 3]
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: AbstractBatches,
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
        resume: L.Trainer | None = None,
    ) -> None:
        self.dataset = dataset
        self.batches = batches
        self._num_workers = num_workers
        self._pin_memory = pin_memory
        self._trainer = resume

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        # A generator function: workers start and the progress is read at the first batch, not at iter(), which
        # Lightning calls more often than it iterates.
        trainer = self._trainer
        # `Trainer(overfit_batches=...)` repeats the same batches in every epoch.
        start = 0 if getattr(trainer, "overfit_batches", 0) else batches_done(trainer)
        # With its own generator: otherwise each iteration of a DataLoader draws from the global generator.
        loader = DataLoader(
            self.dataset,
            batch_sampler=[self.batches.batch(step) for step in range(start, start + len(self))],
            num_workers=self._num_workers,
            pin_memory=self._pin_memory,
            collate_fn=_as_is,
            generator=torch.Generator().manual_seed(0),
            worker_init_fn=ignore_job_signals,
        )
        for batch in loader:
            yield tuple(batch)  # pinning turns it into a list

    def state_dict(self) -> dict[str, Any]:
        """Empty, because Lightning's progress is the position. The method marks mid-epoch resume as safe."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore; see :meth:`state_dict`."""


def _as_is(batch: Any) -> Any:
    """Identity: the dataset returns whole batches."""
    return batch
