"""Checks of views and representations: floating-point tensors of one dtype on one device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def check_tensors(views: Mapping[str, Any]) -> None:
    """Check that each representation is a tensor with one row per sample.

    Args:
        views: The representations by name.

    Raises:
        TypeError: A representation is not a tensor.
        ValueError: A representation has no dimension.

    Example:
        >>> check_tensors({"x": [1.0, 2.0]})
        Traceback (most recent call last):
        TypeError: Got x of type list: a representation is a tensor of shape (N, D), one row per sample. Write ...
    """
    for name, view in views.items():
        if not isinstance(view, Tensor):
            raise TypeError(
                f"Got {name} of type {type(view).__name__}: a representation is a tensor of shape (N, D), one row per "
                f"sample. {_conversion(name, view)}"
            )
        if view.ndim == 0:
            raise ValueError(
                f"Got {name} of shape (): a representation has one row per sample, (N, D). Write "
                f"{name}.reshape(1, 1) for a single sample with one feature."
            )


def check_views(views: Mapping[str, Any], weight: Tensor | None = None) -> None:
    """Check that representations are valid inputs of one critic.

    Under autocast, float32, float16 and bfloat16 may be mixed; float64 may not, because autocast does not convert it.

    Args:
        views: The representations by name.
        weight: A weight of the critic's first layer; None for a critic without weights.

    Raises:
        TypeError: A representation is not a floating-point tensor, or dtypes differ.
        ValueError: Devices differ.

    Example:
        >>> check_views({"x": torch.zeros(4, 2, dtype=torch.float64)}, weight=torch.zeros(2))
        Traceback (most recent call last):
        TypeError: Got x of type float64 and the critic of type float32. Write x.float(), or module.double() to ...
    """
    check_tensors(views)
    for name, view in views.items():
        if not view.is_floating_point():
            raise TypeError(
                f"Got {name} of type {_short(view)} and shape {tuple(view.shape)}: a critic takes floating-point "
                f"numbers. {_to_floating(name, view)}"
            )
    owner, reference = next(iter(views.items()))
    if weight is not None and weight.is_floating_point():
        owner, reference = "the critic", weight
    autocast = torch.is_autocast_enabled(reference.device.type)
    for name, view in views.items():
        if view.device != reference.device:
            raise ValueError(
                f"Got {name} on {view.device} and {owner} on {reference.device}. Write "
                f"{name}.to({str(reference.device)!r})."
            )
        if view.dtype == reference.dtype or (autocast and torch.float64 not in (view.dtype, reference.dtype)):
            continue
        module = f", or module.{_cast(view)} to compute in {_short(view)}" if reference is weight else ""
        raise TypeError(
            f"Got {name} of type {_short(view)} and {owner} of type {_short(reference)}. Write "
            f"{name}.{_cast(reference)}{module}."
        )


_CASTS = {
    torch.float32: "float()",
    torch.float64: "double()",
    torch.float16: "half()",
    torch.bfloat16: "bfloat16()",
}


def _cast(tensor: Tensor) -> str:
    return _CASTS.get(tensor.dtype, f"to({tensor.dtype})")


def _short(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _conversion(name: str, view: Any) -> str:
    """The remedy for a value that is not a tensor."""
    kind = type(view).__module__.partition(".")[0]
    if kind == "numpy" and hasattr(view, "shape"):
        return f"Write torch.from_numpy({name}).float()."
    if view is None:
        return "Override `unpack_batch` to return the views alone."
    if isinstance(view, int | float | complex):
        return f"Write torch.tensor([[{name}]]) for a single sample with one feature."
    return (
        f"Write torch.as_tensor({name}, dtype=torch.float32) for a list of numbers; if an encoder returned it, "
        "override `encode` to return the tensor."
    )


def _to_floating(name: str, view: Tensor) -> str:
    """The remedy for a tensor that is not floating-point."""
    if view.is_complex():
        return f"Write torch.view_as_real({name}).flatten(1): real and imaginary parts are features."
    if view.ndim == 1 and view.dtype != torch.bool:
        return (
            f"For class indices, write torch.nn.functional.one_hot({name}, num_classes).float(), or give an encoder "
            "(encoders.OneHot, nn.Embedding), or use critics.LabelCritic, which scores labels; for counts, write "
            f"{name}.float().unsqueeze(1)."
        )
    return f"Write {name}.float()."
