"""CriticLag: whether a critic that trains along with representations follows them, by a copy that trains longer."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_mi.exceptions import CriticLagWarning

_NUM_BATCHES = 8  # that the copy trains on
_PASSES = 10  # over them
_LAG = 0.05  # nats
_IN_A_ROW = 3  # one batch is a noisy test

Batch = list[Tensor]


@final
class CriticLag:
    """Reads how much more a critic would find if it trained longer on the same representations.

    Every so many batches, a copy trains for ten passes over the last eight batches. Both read the next batch, on which
    neither has trained. Three differences in a row of more than 0.05 nats are a warning.

    Args:
        every: Batches between two checks; None for no checks.

    Attributes:
        value: What the copy reads minus what the critic reads, at the last check, nats; NaN before.

    Warns:
        CriticLagWarning: Once, if the critic lags.
    """

    def __init__(self, every: int | None) -> None:
        self.value = float("nan")
        self._every = every
        self._recent: list[Batch] = []
        self._in_a_row, self._warned = 0, False

    def update(self, batch: Batch, num_batches: int, read: Callable[[], tuple[float, float]]) -> None:
        """Check if it is time, then store a batch.

        Args:
            batch: Detached views, on which the critic has not trained.
            num_batches: The number of batches before this one.
            read: Returns what the critic and what a copy of it, trained on the recent batches, read of this batch.
        """
        if self._every is None:
            return
        if num_batches > 0 and num_batches % self._every == 0 and self._recent:
            with isolate_rng(include_cuda=torch.cuda.is_initialized()):  # type: ignore[no-untyped-call]
                self._judge(*read())
        # The batches until the next check are dropped unread, but for the last.
        self._recent = [*self._recent[1 - _NUM_BATCHES :], batch]

    def schedule(self) -> Sequence[Batch]:
        """The batches that a copy trains on, in their order."""
        return self._recent * _PASSES

    def _judge(self, own: float, longer: float) -> None:
        self.value = longer - own
        self._in_a_row = self._in_a_row + 1 if self.value > _LAG else 0
        if self._in_a_row >= _IN_A_ROW and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"Got {own:.3f} nats by the critic, and {longer:.3f} by a copy that trained longer on the last "
                "batches: the critic lags behind the representations, and the penalty is too small. Raise steps= or "
                "the critic's learning rate, or lower that of the model. Read what is left by callbacks.LeakageAudit "
                "or estimate.",
                category=CriticLagWarning,
            )
