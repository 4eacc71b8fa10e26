"""Raise for a minus sign before a mutual-information loss."""

import torch
from torch import Tensor

from lightning_mi._compat.torch_names import is_functorch_active, is_tracing


def check_sign(loss: Tensor, owner: object) -> None:
    """Raise in backward if the loss is descended with a negative factor; checked at an owner's first backward.

    A minus sign would not minimize mutual information: critic and encoder would descend the estimate together, and the
    critic is free to make it low for any encoder.

    Args:
        loss: A scalar to minimize.
        owner: Its attribute ``_sign_is_checked`` becomes True when a sign has passed; no later one is then checked.

    Raises:
        ValueError: In ``backward``, the gradient of the loss is negative.

    Example:
        >>> loss = torch.tensor(1.0, requires_grad=True)
        >>> check_sign(loss, torch.nn.Identity())
        >>> (-loss).backward()
        Traceback (most recent call last):
        ValueError: Got a mutual-information loss with a minus sign or a negative weight: ...
    """
    if not loss.requires_grad or getattr(owner, "_sign_is_checked", False):
        return
    if torch.compiler.is_compiling() or is_tracing() or is_functorch_active():
        return

    def check(grad_output: Tensor) -> None:
        if not getattr(owner, "_sign_is_checked", False):
            if bool((grad_output < 0).any()):
                raise ValueError(
                    "Got a mutual-information loss with a minus sign or a negative weight: its critic would learn to "
                    "read too little, instead of the encoder to share less. To minimize mutual information use "
                    "callbacks.MIPenalty or MIMinimizer, whose critic keeps maximizing its estimate."
                )
            object.__setattr__(owner, "_sign_is_checked", True)

    loss.register_hook(check)  # type: ignore[no-untyped-call]  # torch leaves it without annotations
