"""Base class of data modules that draw new batches at every training step."""

from abc import ABC, abstractmethod
from typing import final

import lightning.pytorch as L

from lightning_mi._compat.lightning_loops import current_batch_index
from lightning_mi.data.stream import DrawBatch, Split, StreamLoader
from lightning_mi.utilities.checks import check_whole


class AbstractStreamDataModule(L.LightningDataModule, ABC):
    """New batches at every training step; each batch is a pure function of (``seed``, split, step).

    The law of the batches may change during training. Validation and test batches follow the law of the current step.

    Args:
        draw: Draws the batch of a step.
        num_steps: Number of training batches in an epoch.
        batch_size: Pairs N per batch on each rank, at least 2.
        seed: Seed of the data, independent of ``seed_everything``.
        num_workers: Worker processes of each loader.
        val_batches: Number of validation batches.
        test_batches: Number of test batches.

    Raises:
        TypeError: If a number is not of the right type.
        ValueError: If an argument is out of range.
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
        check_whole("batch_size", batch_size, 2)
        check_whole("seed", seed, 0)
        check_whole("num_workers", num_workers, 0)
        check_whole("val_batches", val_batches, 0)
        check_whole("test_batches", test_batches, 0)
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.val_batches = val_batches
        self.test_batches = test_batches
        self._draw = draw

    def __str__(self) -> str:
        """Class and sizes; Lightning's text reads ``DataLoader`` alone, and fails."""
        return f"{type(self).__name__}({self.num_steps} training batches of {self.batch_size})"

    @abstractmethod
    def true_mi(self, step: int | None = None) -> float:
        """I(x; y) of the first two entries of a batch, in nats, at a training step; by default the current one."""

    @property
    def exchangeable(self) -> bool:
        """Whether (x, y) and (y, x) have the same law, which :class:`~lightning_mi.pairs.TwoViews` assumes."""
        return False

    @final
    def train_dataloader(self) -> StreamLoader:
        """Loader of the training batches, starting with the first one not trained on yet."""
        return self._loader("train", self.num_steps)

    @final
    def val_dataloader(self) -> StreamLoader:
        """Loader of the validation batches: fixed noise, with the law of the current step at each iteration."""
        return self._loader("val", self.val_batches)

    @final
    def test_dataloader(self) -> StreamLoader:
        """Loader of the test batches: fixed noise, with the law of the current step."""
        return self._loader("test", self.test_batches)

    @final
    def predict_dataloader(self) -> StreamLoader:
        """Loader of the test batches, for the pointwise mutual information of their joint pairs."""
        return self.test_dataloader()

    @final
    def current_step(self) -> int:
        """Index of the current or last training batch; the last one of the epoch if this trainer has not trained."""
        last = self.num_steps - 1
        if self.trainer is None:
            return last
        step = current_batch_index(self.trainer)
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
            law_step=None if split == "train" else self.current_step,
        )
