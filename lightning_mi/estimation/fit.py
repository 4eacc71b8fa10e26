"""Fit an ensemble of critics, each on its own samples, and keep each at its best step on its validation samples."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, final

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.ensemble.ensemble import MIEnsemble
from lightning_mi.estimation.folds import MemberSplit
from lightning_mi.estimation.schedule import Schedule
from lightning_mi.estimation.scoring import pairwise
from lightning_mi.module import MIEstimationModule
from lightning_mi.pairs import AbstractPairing, AllPairs
from lightning_mi.regularizers import AbstractRegularizer
from lightning_mi.scores.scores import Scores

_MIN_IMPROVEMENT = 1e-3  # nats, of the mean over members: less is not worth further steps
_MAX_VALIDATION = 2048  # samples: their scores are an array of this size squared for each member


class Parts(NamedTuple):
    """Functions that create the parts of one member.

    Attributes:
        critic: Takes a member's split, so that it can be fitted in closed form.
        bound: The bound.
        regularizer: The regularizer; returns None for none.
        pairs: The pairing.
    """

    critic: Callable[[MemberSplit], AbstractCritic]
    bound: Callable[[], AbstractBound]
    regularizer: Callable[[], AbstractRegularizer | None]
    pairs: Callable[[], AbstractPairing] = AllPairs


class Fitted(NamedTuple):
    """The fitted members.

    Attributes:
        members: By member, in evaluation mode.
        best_steps: The training step of each member's weights.
        values: The value of each member on its validation samples, nats.
    """

    members: list[MIEstimationModule]
    best_steps: list[int]
    values: list[float]


def fit_members(
    x: Tensor,
    y: Tensor,
    splits: Sequence[MemberSplit],
    parts: Parts,
    schedule: Schedule,
    seed: int,
    callbacks: Sequence[L.Callback] = (),
    **trainer: Any,
) -> Fitted:
    """Fit one member for each split.

    Args:
        x: (n, Dx).
        y: (n, Dy).
        splits: The samples of each member.
        parts: Create each member's parts.
        schedule: How long and how fast to train.
        seed: Seed of initialization and batches.
        callbacks: Called after each evaluation; they may stop the training.
        **trainer: Arguments of ``lightning.pytorch.Trainer``.
    """
    torch.manual_seed(seed)
    optimizer = partial(torch.optim.AdamW, lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True)
    members = {
        str(index): MIEstimationModule(
            parts.critic(split),
            parts.bound(),
            pairs=parts.pairs(),
            regularizer=parts.regularizer(),
            optimizer=optimizer,
        )
        for index, split in enumerate(splits)
    }
    ensemble = MIEnsemble(members, separate_batches=True)
    validation = np.stack([split.validation[:_MAX_VALIDATION] for split in splits])
    keep_best = KeepBest((x[validation], y[validation]), schedule.check_every, schedule.patience)
    batches = _Batches(x, y, np.stack([split.train for split in splits]), schedule.batch_size, seed)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    options |= {"enable_progress_bar": False, "devices": 1, "log_every_n_steps": schedule.max_steps + 1}
    with _quiet_lightning():
        fitting = L.Trainer(max_steps=schedule.max_steps, callbacks=[keep_best, *callbacks], **(options | trainer))
        fitting.fit(ensemble, DataLoader(batches, batch_size=None))
    keep_best.restore(ensemble)
    return Fitted(list(ensemble.eval().members.values()), keep_best.best_steps, keep_best.values)


@final
class KeepBest(L.Callback):
    """Keeps each member of an ensemble at the step with its highest value on its validation batch.

    Args:
        batch: (members, V, ...) x and y.
        every: Steps between two evaluations.
        patience: Evaluations without an improvement of the members' mean before training stops.

    Attributes:
        values: The highest value of each member, nats.
        best_steps: The step of each member's highest value.
    """

    def __init__(self, batch: tuple[Tensor, Tensor], every: int, patience: int) -> None:
        self._batch, self._every, self._patience = batch, every, patience
        self._states: list[dict[str, Tensor]] = []
        self._without_improvement = 0
        self._mean = -np.inf  # of the best values, at the last improvement
        self.values: list[float] = []
        self.best_steps: list[int] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate the critics before training."""
        assert isinstance(pl_module, MIEnsemble)
        num_members = len(pl_module.members)
        self.values, self.best_steps = [-np.inf] * num_members, [0] * num_members
        self._states = [{} for _ in range(num_members)]
        self._check(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate the critics, and stop if none improves any more."""
        assert isinstance(pl_module, MIEnsemble)
        if (batch_idx + 1) % self._every == 0:
            self._check(trainer, pl_module)
            trainer.should_stop = self._without_improvement >= self._patience

    def restore(self, ensemble: MIEnsemble) -> None:
        """Load the weights of the best steps."""
        for member, state in zip(ensemble.members.values(), self._states, strict=True):
            member.mi_loss.load_state_dict(state)

    def _check(self, trainer: L.Trainer, ensemble: MIEnsemble) -> None:
        ensemble.eval()
        for index, member in enumerate(ensemble.members.values()):
            value = _value(member, *(view[index].to(ensemble.device) for view in self._batch))
            if value > self.values[index]:
                self.values[index], self.best_steps[index] = value, trainer.global_step
                self._states[index] = {name: v.clone() for name, v in member.mi_loss.state_dict().items()}
        ensemble.train()
        mean = float(np.mean(self.values))
        improved = mean > self._mean + _MIN_IMPROVEMENT
        self._without_improvement = 0 if improved else self._without_improvement + 1
        self._mean = mean if improved else self._mean


@torch.no_grad()
def _value(member: MIEstimationModule, x: Tensor, y: Tensor) -> float:
    """The bound's value over all pairs, however few the member trains with."""
    return float(member.bound(Scores.from_matrix(pairwise(member.critic, x, y), y=y)).value)


@final
class _Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches (members, B, ...) of each member's own training samples, without replacement within an epoch."""

    def __init__(self, x: Tensor, y: Tensor, train: np.ndarray[Any, Any], batch_size: int, seed: int) -> None:
        self._x, self._y, self._train = x, y, torch.from_numpy(train)
        self._batch_size = min(batch_size, train.shape[1])
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self._seed)
        num_members, num_samples = self._train.shape
        while True:
            order = torch.rand(num_members, num_samples, generator=generator).argsort(dim=1)
            shuffled = self._train.gather(1, order)
            for start in range(0, num_samples - self._batch_size + 1, self._batch_size):
                rows = shuffled[:, start : start + self._batch_size]
                yield self._x[rows], self._y[rows]


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Context manager: hide Lightning's messages about hardware, data loaders and the end of training."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
