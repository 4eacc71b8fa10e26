"""The one-hot toy: uniform symbols and their copies, on which unregularized estimators drift and explode."""

import math
from dataclasses import dataclass
from typing import final

import torch

from lightning_mi.data.base import AbstractStreamDataModule
from lightning_mi.data.stream import Batch
from lightning_mi.utilities.checks import check_whole


@final
@dataclass(frozen=True)
class _Copies:
    """Draws batches. Picklable, because worker processes get a copy."""

    num_symbols: int
    independent_marginal: bool

    def __call__(self, step: int, num_rows: int, generator: torch.Generator) -> Batch:
        del step  # the law is the same at every step
        symbols = torch.randint(self.num_symbols, (3, num_rows), generator=generator)
        joint = (symbols[0], symbols[0].clone())
        return (*joint, symbols[1], symbols[2]) if self.independent_marginal else joint


@final
class OneHotDataModule(AbstractStreamDataModule):
    """Uniform symbols X and copies Y = X, with MI = log(num_symbols) nats.

    A batch is a tuple (x, y, x_marginal, y_marginal) of (N,) int64 symbols: joint pairs, and independent marginal
    pairs; without ``independent_marginal``, (x, y). :class:`lightning_mi.encoders.OneHot` encodes symbols as vectors.
    Batches are new at every training step and pure functions of (``seed``, step).

    Args:
        num_symbols: Number of symbols, at least 2.
        batch_size: Pairs N per batch on each rank, at least 2.
        steps: Number of training batches in an epoch.
        independent_marginal: Whether batches contain independent marginal pairs.
        seed: Seed of the data, independent of ``seed_everything``.
        num_workers: Worker processes of each loader; 0 is fastest, because drawing is cheap.
        val_batches: Number of validation batches.
        test_batches: Number of test batches.

    Raises:
        TypeError: If a number is not of the right type.
        ValueError: If an argument is out of range.

    Source: Choi and Lee 2022 (figures on drifting, batch 100, and explosion, batch 32).

    Example:
        >>> data = OneHotDataModule(num_symbols=16, batch_size=4)
        >>> x, y, x_marginal, y_marginal = next(iter(data.train_dataloader()))
        >>> torch.equal(x, y), data.true_mi(0)
        (True, 2.7726)
    """

    def __init__(
        self,
        num_symbols: int = 16,
        batch_size: int = 100,
        *,
        steps: int = 3000,
        independent_marginal: bool = True,
        seed: int = 0,
        num_workers: int = 0,
        val_batches: int = 10,
        test_batches: int = 10,
    ) -> None:
        check_whole("num_symbols", num_symbols, 2)
        check_whole("steps", steps, 1)
        self.num_symbols = num_symbols
        super().__init__(
            _Copies(num_symbols, independent_marginal),
            num_steps=steps,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
            val_batches=val_batches,
            test_batches=test_batches,
        )

    def true_mi(self, step: int | None = None) -> float:
        """log(num_symbols), in nats, at every training step."""
        del step
        return math.log(self.num_symbols)

    @property
    def exchangeable(self) -> bool:
        """Whether (x, y) and (y, x) have the same law: always, because y is x."""
        return True
