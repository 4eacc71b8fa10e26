"""Checks for NaN and infinite values before they reach a parameter."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from lightning_mi.exceptions import NonFiniteBatchError
from lightning_mi.utilities.distributed import any_rank
from lightning_mi.utilities.sharded_tensors import is_sharded, local_part

_VIEW_NAMES = ("x", "y", "x_marginal", "y_marginal")


def view_name(position: int, names: Sequence[str] = _VIEW_NAMES) -> str:
    """The name of a view of a batch in messages.

    Example:
        >>> view_name(0), view_name(7)
        ('x', '7')
    """
    return names[position] if position < len(names) else str(position)


def floating_tensors(entries: Sequence[Any]) -> list[Tensor]:
    """The floating-point tensors among the entries of a batch."""
    return [entry for entry in entries if isinstance(entry, Tensor) and entry.is_floating_point()]


def count_non_finite(tensor: Tensor) -> int:
    """The number of NaN and infinite values, of a sharded tensor those on this rank.

    Example:
        >>> count_non_finite(torch.tensor([1.0, float("nan"), float("inf")]))
        2
    """
    return int((~torch.isfinite(local_part(tensor))).sum())


@torch.no_grad()
def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every value of every tensor is finite; one host-device sync, or two if the 2-norm is not finite.

    If the 2-norm is finite, all values are finite. Otherwise it may have overflowed, and the infinity norm, max
    |value|, is computed too: it cannot overflow, but takes nine times as long on a CPU.

    Args:
        tensors: Of any shapes, devices and floating-point or complex types, dense or sparse. If some are sharded, every
            rank must call this function, and all get the same answer.

    Example:
        >>> all_finite([torch.ones(2), torch.tensor(3e38)]), all_finite([torch.tensor([1.0, -math.inf])])
        (True, False)
    """
    local = [local_part(tensor) for tensor in tensors]
    parts = [part for part in local if part.numel()]  # the infinity norm of no value is undefined
    finite = any(math.isfinite(get_total_norm(parts, order).item()) for order in (2.0, math.inf))
    if any(map(is_sharded, tensors)):  # each rank sees its part only
        return not any_rank(not finite, local[0].device)
    return finite


def check_finite(
    views: Sequence[Any],
    location: Callable[[], str],
    changes: Callable[[], str] = str,
    names: Sequence[str] = _VIEW_NAMES,
) -> None:
    """Raise if a view contains NaN or an infinite value.

    Args:
        views: Views of a batch, x and y first; only floating-point tensors are checked.
        location: Returns the step, for the message.
        changes: Returns a sentence, with a leading space, about what has changed so far; empty by default.
        names: Of the views, for the message.

    Raises:
        NonFiniteBatchError: The message names the view, the number of values and the position of the first.

    Example:
        >>> check_finite([torch.ones(2), torch.tensor([1.0, float("nan")])], location=lambda: "training step 7")
        Traceback (most recent call last):
        lightning_mi.exceptions.NonFiniteBatchError: View y of shape (2,) holds 1 values that are not finite, ...
    """
    for position, view in enumerate(views):
        # The sum takes a fraction of the time of an exact count. It may overflow, so the values are counted then.
        if not (isinstance(view, Tensor) and view.is_floating_point()) or math.isfinite(view.detach().sum().item()):
            continue
        if bad := count_non_finite(view):
            first = tuple(int(i) for i in (~torch.isfinite(view)).nonzero()[0])
            raise NonFiniteBatchError(
                f"View {view_name(position, names)} of shape {tuple(view.shape)} holds {bad} values that are not "
                f"finite, the first, {float(view[first])}, at index {first}, at {location()}.{changes()} "
                "Check the data and their transforms."
            )
