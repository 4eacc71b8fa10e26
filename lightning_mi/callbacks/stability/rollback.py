"""Going back to how a training was, with a stronger hold on the log-normalizer."""

import copy
from collections import deque
from typing import Any, NamedTuple, final

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.utils._pytree import tree_map

from lightning_mi.bounds import AbstractBound
from lightning_mi.module import MIEstimationModule
from lightning_mi.regularizers import AbstractRegularizer, Squared


class _Snapshot(NamedTuple):
    step: int
    module: dict[str, Any]
    optimizers: list[dict[str, Any]]
    schedulers: list[dict[str, Any]]


@final
class Snapshots:
    """The last two states of a training, in the processor's memory: module, optimizers and schedulers.

    The older one is gone back to: the younger may hold already what was noticed later. The first one that is taken
    after that replaces it, because it was trained with a firmer hold.

    Example:
        >>> len(Snapshots())
        0
    """

    def __init__(self) -> None:
        self._kept: deque[_Snapshot] = deque(maxlen=2)
        self._superseded = False

    def __len__(self) -> int:
        return len(self._kept)

    def append(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the present state."""
        if self._superseded:
            self._kept.clear()
            self._superseded = False
        self._kept.append(
            _Snapshot(
                trainer.global_step,
                _copied(pl_module.state_dict()),
                [_copied(optimizer.state_dict()) for optimizer in trainer.optimizers],
                [copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs],
            )
        )

    def restore(self, trainer: L.Trainer, pl_module: L.LightningModule) -> int:
        """Put the older state back, and forget the younger; return the step it was taken at."""
        snapshot = self._kept[0]
        self._kept.clear()
        self._kept.append(snapshot)
        self._superseded = True
        factor = None if (regularizer := regularizer_of(pl_module)) is None else regularizer.factor
        pl_module.load_state_dict(snapshot.module)
        if regularizer is not None and factor is not None:  # what holds the log-normalizer is not rolled back
            regularizer.factor = factor
        for optimizer, state in zip(trainer.optimizers, snapshot.optimizers, strict=True):
            optimizer.load_state_dict(_copied(state))  # it would go on in the very tensors, not in copies
            optimizer.zero_grad()  # with accumulation, what has been accumulated belongs to the state that is left
        for config, schedule in zip(trainer.lr_scheduler_configs, snapshot.schedulers, strict=True):
            config.scheduler.load_state_dict(copy.deepcopy(schedule))
        if isinstance(pl_module, MIEstimationModule):
            pl_module.train_metrics.reset()  # or one infinite step would be all that the epoch's averages show
        return snapshot.step


def check_can_roll_back(trainer: L.Trainer, pl_module: L.LightningModule) -> None:
    """Refuse a training that cannot be put back, or whose log-normalizer nothing could then hold.

    Raises:
        ValueError: The module optimizes by hand, or its state is sharded over processes.
        TypeError: The module has no regularizer, and would not use one that it is given.
    """
    name = type(pl_module).__name__
    if not pl_module.automatic_optimization:
        raise ValueError(
            f"Got action='roll_back' for {name}, which optimizes by hand (automatic_optimization is False): what its "
            "optimizers did between two states is unknown here. Use action='stop' or 'warn'."
        )
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):  # DeepSpeed's, which shards, is one of DDP's
        raise ValueError(
            f"Got action='roll_back' under {type(trainer.strategy).__name__}: states are kept whole on each process, "
            "which one device and DDP have. Use action='stop' or 'warn'."
        )
    if not isinstance(pl_module, MIEstimationModule) and regularizer_of(pl_module) is None:
        raise TypeError(
            f"Got action='roll_back' for {name}, which has no regularizer to strengthen in an attribute "
            "`regularizer`. Give it one of lightning_mi.regularizers and add its penalty to the loss, or use "
            "action='stop' or 'warn'."
        )


def regularizer_of(pl_module: L.LightningModule) -> AbstractRegularizer | None:
    """The module's attribute ``regularizer``, if it is one."""
    found = getattr(pl_module, "regularizer", None)
    return found if isinstance(found, AbstractRegularizer) else None


def is_literal(bound: AbstractBound) -> bool:
    """Whether its exponential is the literal one, though it could be the robust one (NWJ and TUBA)."""
    return getattr(bound, "cap", 0.0) is None


def strengthen(
    pl_module: L.LightningModule, bound: AbstractBound, weight: float, raise_by: float
) -> tuple[str, dict[str, Any]]:
    """Hold the log-normalizer more firmly than before.

    Multiplies the regularizer's weight, or installs ``Squared(weight)`` where there is none; gives a bound with the
    literal exponential the robust one.

    Returns:
        What was done, in words, and what :func:`install` takes to do it again after a resume.
    """
    regularizer = regularizer_of(pl_module)
    if regularizer is None:
        regularizer = Squared(weight=weight)
        pl_module.regularizer = regularizer
        done = f"Squared(weight={weight:g}) holds the log-normalizer now"
    else:
        before = regularizer.current_weight()
        if before > 0:
            regularizer.factor *= raise_by
        else:
            regularizer.weight, regularizer.factor = weight, 1.0
        done = f"the weight of {type(regularizer).__name__} is {regularizer.current_weight():g} now, {before:g} before"
    if is_literal(bound):
        bound.cap = 1.0  # type: ignore[assignment]  # of NWJ and TUBA
        done += f", and {type(bound).__name__} has the robust exponential (cap=1)"
    return done, held(pl_module, bound)


def held(pl_module: L.LightningModule, bound: AbstractBound) -> dict[str, Any]:
    """How firmly the log-normalizer is held, in plain values."""
    regularizer = regularizer_of(pl_module)
    assert regularizer is not None
    weight = None if callable(regularizer.weight) else regularizer.weight
    return {"weight": weight, "factor": regularizer.factor, "cap": getattr(bound, "cap", None)}


def install(state: dict[str, Any], pl_module: L.LightningModule, bound: AbstractBound) -> None:
    """Hold the log-normalizer as :func:`held` found it."""
    regularizer = regularizer_of(pl_module)
    if regularizer is None:
        regularizer = Squared(weight=state["weight"])
        pl_module.regularizer = regularizer
    if state["weight"] is not None:
        regularizer.weight = state["weight"]
    regularizer.factor = state["factor"]
    if hasattr(bound, "cap"):
        bound.cap = state["cap"]


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """A copy in the processor's memory, which is larger than the accelerator's."""

    def copied(value: Any) -> Any:
        return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else copy.deepcopy(value)

    with torch.no_grad():
        result: dict[str, Any] = tree_map(copied, dict(state))
    return result
