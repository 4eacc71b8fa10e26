"""KeepBest: each critic of an ensemble at its best step on its validation samples."""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

from lightning_mi.ensemble.ensemble import MIEnsemble
from lightning_mi.estimation.held_out import HeldOutBlock, Reading, read
from lightning_mi.estimation.scoring import pairwise
from lightning_mi.module import MIEstimationModule

_MIN_IMPROVEMENT = 1e-3  # nats, of the mean over members: less is not worth further steps


class Moment(NamedTuple):
    """A critic during training.

    Attributes:
        step: The training step.
        reading: Of its validation samples.
        state: Its weights.
    """

    step: int
    reading: Reading
    state: dict[str, Tensor]


@final
class KeepBest(L.Callback):
    """Keeps each member of an ensemble at its best step: that with the highest value on its validation batch.

    If that exceeds the value before training by less than half a standard error of the difference, the member is kept
    as it was before training: the best of many steps would be that of the noise.

    Args:
        batch: (members, V, ...) x and y.
        every: Steps between two evaluations.
        patience: Evaluations without an improvement of the members' mean before training stops.
    """

    def __init__(self, batch: tuple[Tensor, Tensor], every: int, patience: int) -> None:
        self._batch, self._every, self._patience = batch, every, patience
        self._first: list[Moment] = []
        self._best: list[Moment] = []
        self._without_improvement = 0
        self._mean = -np.inf  # of the best values, at the last improvement

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate the critics before training."""
        assert isinstance(pl_module, MIEnsemble)
        self._first = self._read(trainer, pl_module)
        self._best = list(self._first)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate the critics, and stop if none improves any more."""
        assert isinstance(pl_module, MIEnsemble)
        if (batch_idx + 1) % self._every == 0:
            moments = self._read(trainer, pl_module)
            untrained = self._best[0].step == 0
            self._best = moments if untrained else list(map(_better, self._best, moments))
            mean = float(np.mean([moment.reading.value for moment in map(_better, self._first, self._best)]))
            improved = mean > self._mean + _MIN_IMPROVEMENT
            self._without_improvement = 0 if improved else self._without_improvement + 1
            self._mean = mean if improved else self._mean
            trainer.should_stop = self._without_improvement >= self._patience

    @property
    def kept(self) -> list[Moment]:
        """The moments to keep, by member."""
        return [best if _gains(first, best) else first for first, best in zip(self._first, self._best, strict=True)]

    @property
    def trained(self) -> list[Moment]:
        """The best moments after the first step, by member, whether they are better than before training or not."""
        return self._best

    @torch.no_grad()
    def _read(self, trainer: L.Trainer, ensemble: MIEnsemble) -> list[Moment]:
        """The reading of all pairs of each member's validation batch, however few it trains with."""
        ensemble.eval()
        moments = []
        for index, member in enumerate(ensemble.members.values()):
            x, y = (view[index].to(ensemble.device) for view in self._batch)
            reading = read([HeldOutBlock(0, np.arange(len(x)), pairwise(member.critic, x, y).cpu())])
            moments.append(Moment(trainer.global_step, reading, _copy(member)))
        ensemble.train()
        return moments


def _copy(member: MIEstimationModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in member.mi_loss.state_dict().items()}


def load(moments: Sequence[Moment], ensemble: MIEnsemble) -> None:
    """Load the weights of moments, by member."""
    for member, moment in zip(ensemble.members.values(), moments, strict=True):
        member.mi_loss.load_state_dict(moment.state)


def _better(first: Moment, second: Moment) -> Moment:
    return second if second.reading.value > first.reading.value else first


def _gains(first: Moment, best: Moment) -> bool:
    difference = best.reading.influence - first.reading.influence
    standard_error = difference.std() / np.sqrt(len(difference))
    return bool(best.reading.value - first.reading.value > 0.5 * standard_error)
