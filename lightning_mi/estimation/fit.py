"""Fit an ensemble of critics, each on its own samples."""

import copy
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
from lightning_mi.estimation.families import Family
from lightning_mi.estimation.folds import MemberSplit
from lightning_mi.estimation.keep_best import KeepBest, load
from lightning_mi.estimation.schedule import Schedule
from lightning_mi.module import MIEstimationModule
from lightning_mi.regularizers import AbstractRegularizer

_MAX_VALIDATION = 1024  # samples: their scores are an array of this size squared for each member


class Parts(NamedTuple):
    """Functions that create the parts of one member.

    Attributes:
        critic: Takes a member's split, so that it can be fitted in closed form.
        bound: The bound.
        regularizer: The regularizer; returns None for none.
    """

    critic: Callable[[MemberSplit], AbstractCritic]
    bound: Callable[[], AbstractBound]
    regularizer: Callable[[], AbstractRegularizer | None]


class Fitted(NamedTuple):
    """The fitted members.

    Attributes:
        members: By member, in evaluation mode.
        best_steps: The training step of each member's weights.
        values: The value of each member on its validation samples, nats.
        trained: By member, its critic at its best step after the first: the same, unless a member is as before
            training.
    """

    members: list[MIEstimationModule]
    best_steps: list[int]
    values: list[float]
    trained: list[AbstractCritic]


def fit_members(
    x: Tensor,
    y: Tensor,
    splits: Sequence[MemberSplit],
    parts: Parts,
    family: Family,
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
        family: How they train.
        schedule: How long they train.
        seed: Seed of initialization and batches.
        callbacks: Called after each evaluation; they may stop the training.
        **trainer: Arguments of ``lightning.pytorch.Trainer``.
    """
    torch.manual_seed(seed)
    optimizer = partial(torch.optim.AdamW, lr=family.lr, weight_decay=schedule.weight_decay, fused=True)
    members = {
        str(index): MIEstimationModule(
            parts.critic(split),
            parts.bound(),
            pairs=family.pairs(),
            regularizer=parts.regularizer(),
            optimizer=optimizer,
        )
        for index, split in enumerate(splits)
    }
    ensemble = MIEnsemble(members, separate_batches=True)
    validation = np.stack([split.validation[:_MAX_VALIDATION] for split in splits])
    keep_best = KeepBest((x[validation], y[validation]), schedule.check_every, schedule.patience)
    batches = _Batches(x, y, np.stack([split.train for split in splits]), family.batch_size, seed)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    options |= {"enable_progress_bar": False, "devices": 1, "log_every_n_steps": schedule.max_steps + 1}
    with _quiet_lightning():
        fitting = L.Trainer(max_steps=schedule.max_steps, callbacks=[keep_best, *callbacks], **(options | trainer))
        fitting.fit(ensemble, DataLoader(batches, batch_size=None))
    ensemble.cpu().eval()
    load(keep_best.trained, ensemble)
    kept, trained = keep_best.kept, [copy.deepcopy(member.critic) for member in ensemble.members.values()]
    load(kept, ensemble)
    return Fitted(
        list(ensemble.members.values()),
        [moment.step for moment in kept],
        [moment.reading.value for moment in kept],
        trained,
    )


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
