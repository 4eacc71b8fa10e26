"""Checks of the first training step of a fit: the scale of the views, and the sign of the loss."""

from collections.abc import Sequence
from typing import Any, final

import lightning.pytorch as L
import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.training.step import StepOutput
from lightning_mi.training.view_scale import warn_of_scale


@final
class FirstStep:
    """Checks the first training step of each fit; later steps cost one comparison.

    Example:
        >>> first = FirstStep()
        >>> first.start()
    """

    def __init__(self) -> None:
        self._scale_pending = False
        self._sign_pending = False

    def start(self) -> None:
        """At the start of a fit."""
        self._scale_pending = self._sign_pending = True

    def check_scale(self, critic: AbstractCritic, representations: Sequence[Any]) -> None:
        """Warn about representations far from unit scale.

        Warns:
            ViewScaleWarning: See :func:`warn_of_scale`.
        """
        if self._scale_pending and not torch.compiler.is_compiling():
            self._scale_pending = False
            warn_of_scale(critic, representations)

    def check_sign(self, module: L.LightningModule, output: StepOutput) -> None:
        """Check that the loss decreases with the bound's objective.

        Raises:
            ValueError: It increases, so a critic would be trained to minimize a lower bound.
        """
        if self._sign_pending and not torch.compiler.is_compiling():
            self._sign_pending = False
            if module.automatic_optimization and _increases(output) and _trains_critic(module):
                raise ValueError(
                    f"The loss of {type(module).__name__} increases with the bound's objective, so its minimum is "
                    "minus infinity: a critic that minimizes a lower bound of the mutual information diverges. To "
                    "maximize mutual information, return super().loss(terms, penalty), and not its negative. To "
                    "minimize it over an encoder, maximize the objective over the critic and minimize it over the "
                    "encoder: two optimizers, in manual optimization (self.automatic_optimization = False)."
                )


def _increases(output: StepOutput) -> bool:
    """Whether d loss / d objective is positive; the value counts too, where a loss is made of it.

    Autograd goes from the loss back to these scalars and no further: neither scores nor networks are differentiated.
    """
    loss, terms = output.loss, output.terms
    scalars = [terms.objective] if terms.value is terms.objective else [terms.objective, terms.value]
    scalars = [scalar for scalar in scalars if scalar.requires_grad]
    if not scalars or not loss.requires_grad or loss.numel() != 1:
        return False
    found: Sequence[Tensor | None] = torch.autograd.grad(loss, scalars, retain_graph=True, allow_unused=True)
    return sum(float(gradient) for gradient in found if gradient is not None) > 0


def _trains_critic(module: L.LightningModule) -> bool:
    """Whether the critic trains; one without parameters is trained through the encoder."""
    critic = module.critic
    assert isinstance(critic, torch.nn.Module)
    parameters = list(critic.parameters())
    return not parameters or any(parameter.requires_grad for parameter in parameters)
