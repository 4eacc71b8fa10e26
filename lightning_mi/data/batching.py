"""Finite data that can be interrupted: which samples batch k holds is a function of (seed, k) alone.

Samples are named by keys, ``pass * num_samples + index``: a key tells the sample and how often the data have been gone
through before, so that a random transform of the sample can be a function of its key.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, final

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_mi._compat import batches_done
from lightning_mi.data.sigterm_workers import obey_parent_alone
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
    """Training batches without end: pass after pass through the data, each in its own order, whole batches only.

    Each rank takes its own contiguous slice of the global batch of ``batch_size * world_size`` samples: one rank with
    batches of 64 and two ranks with batches of 32 train on the same samples. What a pass has left beyond whole
    global batches is left out of it, other samples each time.

    Args:
        num_samples: Samples in the dataset.
        batch_size: N, the samples of a batch on each rank.
        seed: Chooses the orders.
        rank: This process's place among ``world_size``.
        world_size: Number of processes that share each global batch.

    Raises:
        ValueError: There are not enough samples for one batch.

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
                f"A batch of {batch_size} on each of {world_size} process(es) needs {batch_size * world_size} training "
                f"samples, but there are {num_samples}. Choose a smaller batch_size."
            )

    def __len__(self) -> int:
        """Batches in a pass."""
        return self.num_samples // (self.batch_size * self.world_size)

    def batch(self, step: int) -> list[int]:
        """The keys of training batch ``step``, counted through all passes."""
        number, place = divmod(step, len(self))
        if self._order is None or self._order[0] != number:
            generator = batch_generator(self.seed, "train", number)
            self._order = number, torch.randperm(self.num_samples, generator=generator)
        start = (place * self.world_size + self.rank) * self.batch_size
        indices = self._order[1][start : start + self.batch_size]
        return (indices + number * self.num_samples).tolist()


@final
class FixedBatches(AbstractBatches):
    """Evaluation batches: each sample on one rank, once, in an order that is always the same.

    The order is shuffled, since the batches of a dataset sorted by class would pair samples of one class only. No rank
    is given samples twice to make all equally long: repeated samples would bias means. A last batch of a single sample
    is left out, because there is nothing to pair it with; ``keep_all`` keeps it.

    Args:
        num_samples: Samples in the dataset.
        batch_size: The samples of a batch on each rank.
        rank: This process's place among ``world_size``.
        world_size: Number of processes that share the samples.
        keep_all: Whether a last batch may have a single sample.

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
        """The keys of batch ``step``, which are the samples' indices."""
        return self._keys[step * self._batch_size : (step + 1) * self._batch_size].tolist()


@final
class BatchLoader:
    """The loader that a data module hands to the Trainer: batches of a dataset that go on where training stands.

    It is not a ``DataLoader`` itself, so that Lightning neither replaces its order nor, on several processes, pads it.

    Args:
        dataset: Its ``__getitems__`` turns a list of keys into a batch.
        batches: Which keys are together.
        num_workers: Worker processes.
        pin_memory: Whether to put batches where a GPU copies them from fastest.
        resume: Start from the first batch that this trainer has not trained on, and from the first one without it.

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
        # A generator, so that no worker starts before the first batch is asked for: Lightning calls iter() more often
        # than it iterates. Progress is read at that moment too, each epoch anew.
        trainer = self._trainer
        # `Trainer(overfit_batches=...)` means the same few batches again and again.
        start = 0 if getattr(trainer, "overfit_batches", 0) else batches_done(trainer)
        # Its own generator: a loader otherwise takes a number from the global stream whenever it starts.
        loader = DataLoader(
            self.dataset,
            batch_sampler=[self.batches.batch(step) for step in range(start, start + len(self))],
            num_workers=self._num_workers,
            pin_memory=self._pin_memory,
            collate_fn=_as_is,
            generator=torch.Generator().manual_seed(0),
            worker_init_fn=obey_parent_alone,
        )
        for batch in loader:
            yield tuple(batch)  # pinning makes a list of it

    def state_dict(self) -> dict[str, Any]:
        """Empty: Lightning's progress is the position. Its existence tells Lightning that mid-epoch resume is safe."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore; see :meth:`state_dict`."""


def _as_is(batch: Any) -> Any:
    """Batches come whole from the dataset."""
    return batch
