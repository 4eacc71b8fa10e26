"""The optimizer of a module's parameters and its scheduler, as Lightning wants them."""

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
    """The plan of checked arguments; they are those of ``MIEstimationModule``.

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
    """How an optimizer is made once there are parameters.

    Attributes:
        optimizer: Makes it; Adam with a learning rate of 1e-3 by default, fused where it can be.
        scheduler: Makes a learning-rate scheduler of it; none by default.
        interval: Whether the scheduler steps each ``"epoch"`` or each ``"step"``.

    Example:
        >>> type(OptimizerPlan().make([nn.Parameter(torch.zeros(1))])).__name__
        'Adam'
    """

    optimizer: OptimizerCallable | None = None
    scheduler: LRSchedulerCallable | None = None
    interval: str = "epoch"

    def make(self, parameters: Sequence[nn.Parameter], scaled: bool = False) -> OptimizerLRScheduler:
        """What ``configure_optimizers`` returns.

        Args:
            parameters: What trains.
            scaled: Whether gradients are scaled, as for fp16. A fused optimizer takes the scale back by itself, which
                Lightning does not let one combine with gradient clipping.
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
    """Whether a trainer scales gradients, as for fp16."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def _is_fusible(parameter: nn.Parameter) -> bool:
    """Whether torch's fused Adam takes it: on a CPU or a CUDA device, and no part of a sharded one."""
    plain = type(parameter) in (nn.Parameter, torch.Tensor)
    return plain and parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda")
