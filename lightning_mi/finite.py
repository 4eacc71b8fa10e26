"""Finds values that are not finite before they reach a parameter."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_NAMES = ("x", "y", "x_marginal", "y_marginal")


class NonFiniteBatchError(ValueError):
    """A batch holds a value that is infinite or not a number."""


class NonFiniteStepError(ValueError):
    """A training step has scores, a loss or gradients that are infinite or not a number."""


def check_finite(views: Sequence[Any], where: str) -> None:
    """Refuse views that hold an infinite value or one that is not a number.

    Args:
        views: Of a batch, x and y first; only floating-point tensors are looked at.
        where: In the training, for the message.

    Raises:
        NonFiniteBatchError: Names the view, how many values and where the first is.

    Example:
        >>> check_finite([torch.ones(2), torch.tensor([1.0, float("nan")])], where="training step 7")
        Traceback (most recent call last):
        lightning_mi.finite.NonFiniteBatchError: View y of shape (2,) holds 1 values that are not finite, the first, ...
    """
    for position, view in enumerate(views):
        # The sum of finite values may overflow too, which is looked into; it takes a fraction of the time.
        if not (isinstance(view, Tensor) and view.is_floating_point()) or math.isfinite(view.sum()):
            continue
        if not bool(torch.isfinite(view).all()):
            name = _NAMES[position] if position < len(_NAMES) else str(position)
            bad = ~torch.isfinite(view)
            first = tuple(int(i) for i in bad.nonzero()[0])
            raise NonFiniteBatchError(
                f"View {name} of shape {tuple(view.shape)} holds {int(bad.sum())} values that are not finite, the "
                f"first, {float(view[first])}, at index {first}, at {where}. "
                "No parameter has changed. Look for it in the data or their transforms."
            )
