"""Rollback of a training to an earlier state, with a stronger regularizer."""

import copy
from collections import deque
from typing import Any, NamedTuple, final

import lightning.pytorch as L
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.callbacks._step_outputs import find_regularizer
from lightning_mi.module import MIEstimationModule
from lightning_mi.regularizers import Squared


class _Snapshot(NamedTuple):
    """State dicts of a training, on the CPU."""

    step: int
    module: dict[str, Any]
    optimizers: list[dict[str, Any]]
    schedulers: list[dict[str, Any]]


@final
class Snapshots:
    """The last two snapshots of a training, in CPU memory: module, optimizers and schedulers.

    Rollback restores the older one: the newer one may already contain the cause of a later detection. The first
    snapshot after a rollback replaces it, because it was trained with the stronger regularizer.

    Example:
        >>> len(Snapshots())
        0
    """

    def __init__(self) -> None:
        self._saved: deque[_Snapshot] = deque(maxlen=2)
        self._restored = False  # since the last append

    def __len__(self) -> int:
        return len(self._saved)

    def append(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take a snapshot."""
        if self._restored:
            self._saved.clear()
            self._restored = False
        self._saved.append(
            _Snapshot(
                trainer.global_step,
                _copy_to_cpu(dict(pl_module.state_dict())),
                [_copy_to_cpu(optimizer.state_dict()) for optimizer in trainer.optimizers],
                [copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs],
            )
        )

    def restore(self, trainer: L.Trainer, pl_module: L.LightningModule) -> int:
        """Restore the older snapshot and drop the newer one; return the step of the restored one."""
        snapshot = self._saved[0]
        self._saved.clear()
        self._saved.append(snapshot)
        self._restored = True
        regularizer = find_regularizer(pl_module)
        factor = None if regularizer is None else regularizer.factor
        pl_module.load_state_dict(snapshot.module)
        if regularizer is not None and factor is not None:  # the regularizer's weight is not rolled back
            regularizer.factor = factor
        for optimizer, state in zip(trainer.optimizers, snapshot.optimizers, strict=True):
            optimizer.load_state_dict(_copy_to_cpu(state))  # copies: it trains the tensors that it loads
            optimizer.zero_grad()  # gradients that were accumulated belong to the state that is dropped
        for config, schedule in zip(trainer.lr_scheduler_configs, snapshot.schedulers, strict=True):
            config.scheduler.load_state_dict(copy.deepcopy(schedule))
        if isinstance(pl_module, MIEstimationModule):
            pl_module.train_metrics.reset()  # one infinite step would make all of the epoch's averages infinite
        return snapshot.step


def check_can_roll_back(trainer: L.Trainer, pl_module: L.LightningModule) -> None:
    """Check that a training can be rolled back, and that its regularizer can be strengthened.

    Raises:
        ValueError: The module uses manual optimization, or the strategy shards its state.
        TypeError: The module has no regularizer, and its loss would not use one.
    """
    name = type(pl_module).__name__
    if not pl_module.automatic_optimization:
        raise ValueError(
            f"Got action='roll_back' for {name} with manual optimization: the updates of its optimizers between two "
            "snapshots are unknown. Use action='stop' or 'warn'."
        )
    if type(trainer.strategy) not in (
        SingleDeviceStrategy,
        DDPStrategy,
    ):  # not isinstance: DeepSpeed's is a DDPStrategy
        raise ValueError(
            f"Got action='roll_back' under {type(trainer.strategy).__name__}: snapshots need the whole state on each "
            "rank, as with one device and DDP. Use action='stop' or 'warn'."
        )
    if not isinstance(pl_module, MIEstimationModule) and find_regularizer(pl_module) is None:
        raise TypeError(
            f"Got action='roll_back' for {name} without a regularizer in its attribute `regularizer`: rollback raises "
            "its weight. Give it one of lightning_mi.regularizers and add its penalty to the loss, or use "
            "action='stop' or 'warn'."
        )


def has_literal_exponential(bound: AbstractBound) -> bool:
    """True if a bound (NWJ or TUBA) has the literal exponential instead of the robust one."""
    return getattr(bound, "cap", 0.0) is None


def strengthen(
    pl_module: L.LightningModule, bound: AbstractBound, weight: float, raise_by: float
) -> tuple[str, dict[str, Any]]:
    """Strengthen the regularizer, and cap a literal exponential.

    Multiplies the regularizer's weight with ``raise_by``, or installs ``Squared(weight)`` if there is none.

    Returns:
        A description, and the :func:`hold_state` for a resume.
    """
    regularizer = find_regularizer(pl_module)
    if regularizer is None:
        pl_module.regularizer = Squared(weight=weight)
        description = f"Squared(weight={weight:g}) holds the log-normalizer now"
    else:
        before = regularizer.current_weight()
        if before > 0:
            regularizer.factor *= raise_by
        else:
            regularizer.weight, regularizer.factor = weight, 1.0
        name, after = type(regularizer).__name__, regularizer.current_weight()
        description = f"the weight of {name} is {after:g} now, {before:g} before"
    if has_literal_exponential(bound):
        bound.cap = 1.0  # type: ignore[assignment]  # of NWJ and TUBA
        description += f", and {type(bound).__name__} has the robust exponential (cap=1)"
    return description, hold_state(pl_module, bound)


def hold_state(pl_module: L.LightningModule, bound: AbstractBound) -> dict[str, Any]:
    """The settings that hold the log-normalizer: the regularizer's weight and factor, the bound's cap; plain values."""
    regularizer = find_regularizer(pl_module)
    assert regularizer is not None
    weight = None if callable(regularizer.weight) else regularizer.weight
    return {"weight": weight, "factor": regularizer.factor, "cap": getattr(bound, "cap", None)}


def restore_hold(state: dict[str, Any], pl_module: L.LightningModule, bound: AbstractBound) -> None:
    """Restore the settings that :func:`hold_state` returned, with ``Squared`` if there is no regularizer."""
    regularizer = find_regularizer(pl_module)
    if regularizer is None:
        regularizer = Squared(weight=state["weight"])
        pl_module.regularizer = regularizer
    if state["weight"] is not None:
        regularizer.weight = state["weight"]
    regularizer.factor = state["factor"]
    if hasattr(bound, "cap"):
        bound.cap = state["cap"]


def _copy_to_cpu(value: Any) -> Any:
    """A deep copy of a state dict with its tensors in CPU memory, which is larger than the accelerator's."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy_to_cpu(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_copy_to_cpu(entry) for entry in value]
    return copy.deepcopy(value)
