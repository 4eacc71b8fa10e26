"""Finds values that are not finite before they reach a parameter."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lightning_mi.exceptions import NonFiniteBatchError

_NAMES = ("x", "y", "x_marginal", "y_marginal")


def view_name(position: int) -> str:
    """What a message calls a view of a batch.

    Example:
        >>> view_name(0), view_name(7)
        ('x', '7')
    """
    return _NAMES[position] if position < len(_NAMES) else str(position)


def floating(entries: Sequence[Any]) -> list[Tensor]:
    """The tensors among a batch's entries whose values can be other than finite."""
    return [entry for entry in entries if isinstance(entry, Tensor) and entry.is_floating_point()]


def count_non_finite(tensor: Tensor) -> int:
    """How many values are infinite or not a number.

    Example:
        >>> count_non_finite(torch.tensor([1.0, float("nan"), float("inf")]))
        2
    """
    return int((~torch.isfinite(tensor)).sum())


@torch.no_grad()
def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every value of every tensor is finite, in one pass; a device is waited for once.

    The pass is that of torch's gradient scaler, with a scale of 1: the tensors are written to and stay what they were.

    Args:
        tensors: Of any shapes; not views of a batch, whose memory may be read-only.

    Example:
        >>> all_finite([torch.ones(2), torch.tensor(3e38)]), all_finite([torch.tensor([1.0, -math.inf])])
        (True, False)
    """
    if not tensors:
        return True
    first = tensors[0]
    found = torch.zeros((), device=first.device)
    try:
        torch._amp_foreach_non_finite_check_and_unscale_(list(tensors), found, _one(first.device))
    except (RuntimeError, NotImplementedError):  # on several devices, sparse, or of a type that it does not take
        return not any(count_non_finite(t.coalesce().values() if t.is_sparse else t) for t in tensors)
    return not found.item()


@lru_cache
def _one(device: torch.device) -> Tensor:
    return torch.ones((), device=device)


def check_finite(views: Sequence[Any], where: Callable[[], str], after: Callable[[], str] = str) -> None:
    """Refuse views that hold an infinite value or one that is not a number.

    Args:
        views: Of a batch, x and y first; only floating-point tensors are looked at.
        where: Returns where it was found, for the message.
        after: Returns what has changed by then, a sentence with a space before it; nothing by default.

    Raises:
        NonFiniteBatchError: Names the view, how many values and where the first is.

    Example:
        >>> check_finite([torch.ones(2), torch.tensor([1.0, float("nan")])], where=lambda: "training step 7")
        Traceback (most recent call last):
        lightning_mi.exceptions.NonFiniteBatchError: View y of shape (2,) holds 1 values that are not finite, the first, ...
    """
    for position, view in enumerate(views):
        # The sum of finite values may overflow too, which is looked into; it takes a fraction of the time.
        if not (isinstance(view, Tensor) and view.is_floating_point()) or math.isfinite(view.detach().sum().item()):
            continue
        if bad := count_non_finite(view):
            name = view_name(position)
            first = tuple(int(i) for i in (~torch.isfinite(view)).nonzero()[0])
            raise NonFiniteBatchError(
                f"View {name} of shape {tuple(view.shape)} holds {bad} values that are not finite, the "
                f"first, {float(view[first])}, at index {first}, at {where()}.{after()} "
                "Look for it in the data or their transforms."
            )
