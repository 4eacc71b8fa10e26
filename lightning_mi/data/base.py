"""What the data modules of streamed batches share: their loaders, and which step's law is in force."""

from abc import ABC, abstractmethod
from typing import final

import lightning.pytorch as L

from lightning_mi._compat import batch_in_force
from lightning_mi.data.stream import DrawBatch, Split, StreamLoader, check_at_least


class AbstractStreamDataModule(L.LightningDataModule, ABC):
    """Batches drawn afresh at each training step, each a function of (``seed``, split, step) alone.

    Args:
        draw: Draws the batch of a step.
        num_steps: Training batches in an epoch.
        batch_size: Pairs N per batch on each rank, at least 2.
        seed: Chooses the data, independently of ``seed_everything``.
        num_workers: Worker processes.
        val_batches: Validation batches.
        test_batches: Test batches.

    Raises:
        ValueError: If an argument is out of range; the message says which and what would be right.
    """

    def __init__(
        self,
        draw: DrawBatch,
        *,
        num_steps: int,
        batch_size: int,
        seed: int,
        num_workers: int,
        val_batches: int,
        test_batches: int,
    ) -> None:
        super().__init__()
        check_at_least("batch_size", batch_size, 2)
        check_at_least("seed", seed, 0)
        check_at_least("num_workers", num_workers, 0)
        check_at_least("val_batches", val_batches, 0)
        check_at_least("test_batches", test_batches, 0)
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.val_batches = val_batches
        self.test_batches = test_batches
        self._draw = draw

    @abstractmethod
    def true_mi(self, step: int | None = None) -> float:
        """I(x; y) of the first two entries of a batch, nats, at a training step; by default the one in force."""

    @property
    def exchangeable(self) -> bool:
        """Whether (x, y) and (y, x) have the same law, as :class:`~lightning_mi.pairs.TwoViews` takes them."""
        return False

    @final
    def train_dataloader(self) -> StreamLoader:
        """Training batches, from the first that has not been trained on."""
        return self._loader("train", self.num_steps)

    @final
    def val_dataloader(self) -> StreamLoader:
        """The fixed validation batches, of the law in force each time they are iterated."""
        return self._loader("val", self.val_batches)

    @final
    def test_dataloader(self) -> StreamLoader:
        """The fixed test batches, of the law in force."""
        return self._loader("test", self.test_batches)

    @final
    def predict_dataloader(self) -> StreamLoader:
        """The test batches, for the pointwise mutual information of each of their joint pairs."""
        return self.test_dataloader()

    @final
    def step_in_force(self) -> int:
        """The batch being trained on, or the last one trained on; the epoch's last where nothing has been trained."""
        last = self.num_steps - 1
        if self.trainer is None:
            return last
        step = batch_in_force(self.trainer)
        return step if step > 0 or self.trainer.state.fn == "fit" else last

    def _loader(self, split: Split, num_batches: int) -> StreamLoader:
        return StreamLoader(
            self._draw,
            seed=self.seed,
            split=split,
            batch_size=self.batch_size,
            num_batches=num_batches,
            num_workers=self.num_workers,
            trainer=self.trainer,
            law_step=None if split == "train" else self.step_in_force,
        )
