"""The optimizer of a module's parameters and its scheduler, as Lightning wants them."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn


class OptimizerPlan(NamedTuple):
    """How an optimizer is made once there are parameters.

    Attributes:
        optimizer: Makes it; Adam with a learning rate of 1e-3 by default.
        scheduler: Makes a learning-rate scheduler of it; none by default.
        interval: Whether the scheduler steps each ``"epoch"`` or each ``"step"``.

    Example:
        >>> type(OptimizerPlan().make([nn.Parameter(torch.zeros(1))])).__name__
        'Adam'
    """

    optimizer: OptimizerCallable | None = None
    scheduler: LRSchedulerCallable | None = None
    interval: str = "epoch"

    def make(self, parameters: Sequence[nn.Parameter]) -> OptimizerLRScheduler:
        """What ``configure_optimizers`` returns."""
        optimizer = torch.optim.Adam(parameters, lr=1e-3) if self.optimizer is None else self.optimizer(parameters)
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        config: dict[str, Any] = {"scheduler": scheduler, "interval": self.interval}
        if monitor := getattr(scheduler, "monitor", None):
            config["monitor"] = monitor
        return cast("OptimizerLRScheduler", {"optimizer": optimizer, "lr_scheduler": config})
