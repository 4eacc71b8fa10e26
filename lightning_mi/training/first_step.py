"""Checks of the first training step of a fit: the scale of the views, and the sign of the loss."""

from collections.abc import Sequence
from typing import Any, cast, final

import lightning.pytorch as L
import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.training.step import StepOutput
from lightning_mi.training.view_scale import warn_of_scale
from lightning_mi.utilities.loss_sign import check_sign


@final
class FirstStep:
    """Checks the first training step of each fit.

    Example:
        >>> first = FirstStep()
        >>> first.start()
    """

    def __init__(self) -> None:
        self._scale_pending = False
        self._sign_pending = False
        self._sign_is_checked = False  # in backward, by check_sign

    def start(self) -> None:
        """Begin a fit."""
        self._scale_pending = self._sign_pending = True
        self._sign_is_checked = False

    def check_scale(self, critic: AbstractCritic, representations: Sequence[Any]) -> None:
        """Warn if representations are far from unit scale.

        Warns:
            ViewScaleWarning: See :func:`warn_of_scale`.
        """
        if self._scale_pending and not torch.compiler.is_compiling():
            self._scale_pending = False
            warn_of_scale(critic, representations)

    def check_sign(self, module: L.LightningModule, output: StepOutput) -> None:
        """Check that the loss decreases with the bound's objective, and in ``backward`` that its sign has not changed.

        Raises:
            ValueError: The loss increases with it: the critic would minimize a lower bound.
        """
        if self._sign_pending and not torch.compiler.is_compiling():
            self._sign_pending = False
            if not module.automatic_optimization or not _trains_critic(module):
                return
            if _increases(output):
                raise ValueError(
                    f"Got a loss of {type(module).__name__} that increases with the bound's objective, so its minimum "
                    "is minus infinity: a critic that minimizes a lower bound of the mutual information diverges. To "
                    "maximize mutual information, return super().loss(terms, penalty), not its negative. To "
                    "minimize it over an encoder, add callbacks.MIPenalty to the trainer of a module with the other "
                    "loss, or MIMinimizer to that loss: their critic keeps maximizing its estimate."
                )
            check_sign(output.loss, self)  # a subclass may return its negative


def _increases(output: StepOutput) -> bool:
    """Whether d loss / d objective is positive; for a loss computed from the value, d loss / d value.

    Autograd stops at these scalars: scores and networks are not differentiated.
    """
    loss, terms = output.loss, output.terms
    scalars = [terms.objective] if terms.value is terms.objective else [terms.objective, terms.value]
    scalars = [scalar for scalar in scalars if scalar.requires_grad]
    if not scalars or not loss.requires_grad or loss.numel() != 1:
        return False
    gradients: Sequence[Tensor | None] = torch.autograd.grad(loss, scalars, retain_graph=True, allow_unused=True)
    return sum(float(gradient) for gradient in gradients if gradient is not None) > 0


def _trains_critic(module: L.LightningModule) -> bool:
    """Whether the critic trains. A critic without parameters trains through the encoder."""
    critic = cast("torch.nn.Module", module.critic)
    parameters = list(critic.parameters())
    return not parameters or any(parameter.requires_grad for parameter in parameters)
