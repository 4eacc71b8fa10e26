"""The one-hot toy: a uniform symbol and its copy, on which unregularized estimators drift and explode."""

import math
from dataclasses import dataclass
from typing import final

import torch

from lightning_mi.data.base import AbstractStreamDataModule
from lightning_mi.data.stream import Batch, check_at_least


@final
@dataclass(frozen=True)
class _Copies:
    """Draws batches; all that a worker process needs."""

    num_symbols: int
    independent_marginal: bool

    def __call__(self, step: int, num_rows: int, generator: torch.Generator) -> Batch:
        del step  # the law is the same at every step
        symbols = torch.randint(self.num_symbols, (3, num_rows), generator=generator)
        joint = (symbols[0], symbols[0].clone())
        return (*joint, symbols[1], symbols[2]) if self.independent_marginal else joint


@final
class OneHotDataModule(AbstractStreamDataModule):
    """X uniform on ``num_symbols`` symbols and Y = X, so that MI = log(num_symbols) nats.

    A batch is a tuple (x, y, x_marginal, y_marginal) of (N,) int64 symbols: a joint pair, and an independent draw from
    the product of the marginals; or (x, y) alone. :class:`lightning_mi.encoders.OneHot` turns symbols into vectors.
    Batches are drawn afresh at each training step and are a function of (``seed``, step) alone.

    Args:
        num_symbols: Size of the alphabet, at least 2.
        batch_size: Pairs N per batch on each rank, at least 2.
        steps: Training batches in an epoch.
        independent_marginal: Whether batches carry the marginal pair.
        seed: Chooses the data, independently of ``seed_everything``.
        num_workers: Worker processes; 0 is right for data this cheap.
        val_batches: Validation batches.
        test_batches: Test batches.

    Raises:
        ValueError: If an argument is out of range; the message says which and what would be right.

    Source:
        Choi & Lee (UAI 2022), the one-hot toy of the drifting (batch 100) and explosion (batch 32) figures.

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
        steps: int = 3000,
        independent_marginal: bool = True,
        seed: int = 0,
        num_workers: int = 0,
        val_batches: int = 10,
        test_batches: int = 10,
    ) -> None:
        check_at_least("num_symbols", num_symbols, 2)
        check_at_least("steps", steps, 1)
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
        """(x, y) and (y, x) have the same law, since y is x."""
        return True
