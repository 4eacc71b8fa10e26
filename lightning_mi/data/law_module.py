"""Batches of any law with known mutual information."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.base import AbstractStreamDataModule
from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.data.stream import Batch
from lightning_mi.utilities.checks import check_instance, check_whole


@final
@dataclass(frozen=True)
class _Draw:
    """Draws batches. Picklable, because worker processes get a copy."""

    law: AbstractLaw
    independent_marginal: bool

    def __call__(self, step: int, num_rows: int, generator: torch.Generator) -> Batch:
        del step  # the law is the same at every step
        x, y = self.law.sample(num_rows, generator)
        batch = [x, y]
        if self.independent_marginal:
            batch += [self.law.sample(num_rows, generator)[0], self.law.sample(num_rows, generator)[1]]
        return tuple(_single_precision(side) for side in batch)


def _single_precision(side: Tensor) -> Tensor:
    return side.float() if side.is_floating_point() else side


@final
class LawDataModule(AbstractStreamDataModule):
    """New batches of a law at every training step.

    A batch is a tuple (x, y): numbers are float32, with N rows; labels are int64 (N,). If y is labels, they are last in
    the batch, where :class:`~lightning_mi.pairs.EnumeratedLabels` takes them, and ``num_classes`` is their number. If
    only x is labels, wrap the law in :class:`~lightning_mi.data.laws.Swapped`. For critics that take vectors, map them:
    :class:`~lightning_mi.data.laws.Mapped` with :class:`~lightning_mi.data.laws.OneHotLabels`.

    Batches are pure functions of (``seed``, step): they do not depend on the number of workers or on a resume, and two
    ranks with batches of 32 see the data of one rank with batches of 64. The samples of a time series are consecutive
    within a batch and independent between batches.

    Args:
        law: The law of (x, y).
        steps_per_epoch: Number of training batches in an epoch.
        batch_size: Pairs N per batch on each rank, at least 2.
        independent_marginal: Whether batches are (x, y, x', y') with independent x' and y', for
            :class:`~lightning_mi.pairs.IndependentMarginal`.
        seed: Seed of the data, independent of ``seed_everything``.
        num_workers: Worker processes of each loader.
        val_batches: Number of validation batches.
        test_batches: Number of test batches.

    Raises:
        TypeError: If ``law`` is not a law, or a number is not of the right type.
        ValueError: If a number is out of range, or a time series is combined with ``independent_marginal``.

    Example:
        >>> from lightning_mi.data import laws
        >>> data = LawDataModule(laws.StudentT(laws.GaussianPairs(dim=2, rho=0.5), df=3), batch_size=8)
        >>> x, y = next(iter(data.train_dataloader()))
        >>> x.shape, x.dtype, data.true_mi()
        (torch.Size([8, 2]), torch.float32, 0.3985)
    """

    def __init__(
        self,
        law: AbstractLaw,
        *,
        steps_per_epoch: int = 1000,
        batch_size: int = 64,
        independent_marginal: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        val_batches: int = 100,
        test_batches: int = 100,
    ) -> None:
        check_instance("law", law, AbstractLaw, "laws.GaussianPairs(dim=1, rho=0.75)")
        check_whole("steps_per_epoch", steps_per_epoch, 1)
        if independent_marginal and not law.independent_samples:
            raise ValueError(
                f"Got independent_marginal=True and {law.name}, whose samples are not independent: x' and y' would be "
                "series of their own, with other noise than independent pairs. Set independent_marginal=False."
            )
        self.law = law
        if law.num_y_labels is not None:
            self.num_classes = law.num_y_labels
        super().__init__(
            _Draw(law, independent_marginal),
            num_steps=steps_per_epoch,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
            val_batches=val_batches,
            test_batches=test_batches,
        )

    def true_mi(self, step: int | None = None) -> float:
        """I(x; y) in nats, at every training step."""
        del step
        return self.law.true_mi

    @property
    def exchangeable(self) -> bool:
        """Whether (x, y) and (y, x) have the same law."""
        return self.law.exchangeable
