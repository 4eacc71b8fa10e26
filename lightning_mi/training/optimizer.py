"""The optimizer of a module's parameters and its scheduler, in the form that Lightning expects."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import lightning.pytorch as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_mi.utilities.checks import check_choice, check_factory


def plan(optimizer: Any, scheduler: Any, interval: Any) -> "OptimizerPlan":
    """Check the optimizer arguments of ``MIEstimationModule``.

    Args:
        optimizer: Creates the optimizer, or None.
        scheduler: Creates the scheduler, or None.
        interval: ``"epoch"`` or ``"step"``.

    Raises:
        TypeError: The optimizer or the scheduler is not a callable that creates one.
        ValueError: The interval is unknown.

    Example:
        >>> plan(torch.optim.SGD([torch.zeros(1)], lr=0.1), None, "epoch")
        Traceback (most recent call last):
        TypeError: Got optimizer of type SGD: it must be a callable that creates one. Write optimizer=...
    """
    check_factory("optimizer", optimizer, Optimizer, "lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)")
    check_factory(
        "scheduler",
        scheduler,
        (LRScheduler, ReduceLROnPlateau),
        "lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)",
    )
    check_choice("scheduler_interval", interval, ("epoch", "step"))
    return OptimizerPlan(optimizer, scheduler, interval)


class OptimizerPlan(NamedTuple):
    """Checked optimizer arguments, from which the optimizer is created once parameters exist.

    Attributes:
        optimizer: Creates the optimizer; Adam with a learning rate of 1e-3 by default, fused if possible.
        scheduler: Creates a learning-rate scheduler for the optimizer; none by default.
        interval: The scheduler steps each ``"epoch"`` or each ``"step"``.

    Example:
        >>> type(OptimizerPlan().make([nn.Parameter(torch.zeros(1))])).__name__
        'Adam'
    """

    optimizer: OptimizerCallable | None = None
    scheduler: LRSchedulerCallable | None = None
    interval: str = "epoch"

    def make(self, parameters: Sequence[nn.Parameter], scaled: bool = False) -> OptimizerLRScheduler:
        """The return value of ``configure_optimizers``.

        Args:
            parameters: The trainable parameters.
            scaled: Whether gradients are scaled, as for fp16. A fused optimizer unscales them itself, which Lightning
                does not support with gradient clipping: the default is then not fused.
        """
        if self.optimizer is None:
            fused = not scaled and all(map(_is_fusible, parameters))
            optimizer: Optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=fused or None)
        else:
            optimizer = self.optimizer(parameters)
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        config: dict[str, Any] = {"scheduler": scheduler, "interval": self.interval}
        if monitor := getattr(scheduler, "monitor", None):
            config["monitor"] = monitor
        return cast("OptimizerLRScheduler", {"optimizer": optimizer, "lr_scheduler": config})


def gradients_are_scaled(trainer: L.Trainer) -> bool:
    """Whether the trainer uses a gradient scaler, as for fp16."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def _is_fusible(parameter: nn.Parameter) -> bool:
    """Whether torch's fused Adam supports a parameter: on a CPU or CUDA device, and not sharded."""
    plain = type(parameter) in (nn.Parameter, torch.Tensor)
    return plain and parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda")
