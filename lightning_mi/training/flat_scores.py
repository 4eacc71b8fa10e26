"""Warn if all pairs have the same score and the gradient is zero: the critic cannot learn."""

from collections.abc import Sequence
from typing import final

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.scores.scores import Scores
from lightning_mi.training.error_context import step_location

_TOLERANCE = 1e-6  # relative; float32 rounds at 6e-8


@final
class FlatScoresCheck:
    """Checks the first step of a training and each logged step, until it has warned once.

    Example:
        >>> check = FlatScoresCheck()
        >>> check.start()
    """

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin a training."""
        self._first, self._warned = True, False

    def __call__(self, module: L.LightningModule, scores: Scores, gradients: Sequence[Tensor], logged: bool) -> None:
        """Check a step.

        Args:
            module: The module, for the message.
            scores: Scores of this rank.
            gradients: Gradients of all parameters.
            logged: Whether the step is logged.

        Warns:
            MINumericalWarning: Scores and gradients are constant up to rounding.
        """
        pending, self._first = (logged or self._first) and not self._warned, False
        if not pending:
            return
        values = torch.cat([scores.joint.detach(), scores.marginal_values().detach()])
        if not values.numel():  # all pairs are on another rank
            return
        low, high = values.aminmax()
        scale = max(abs(float(low)), abs(float(high)))
        if float(high - low) > _TOLERANCE * scale:
            return
        if all(float(gradient.norm()) <= _TOLERANCE * max(scale, 1.0) for gradient in gradients):
            self._warned = True
            rank_zero_warn(
                f"All pairs have the same score and the gradient is zero at {step_location(module)}: the critic does "
                "not learn. Check for constant inputs, features that are all zero, or rows that are all the same.",
                category=MINumericalWarning,
            )
