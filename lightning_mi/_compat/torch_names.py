"""Private names of torch."""

from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_mi._compat.missing import warn_missing

WRAPPER_SEGMENT = "_orig_mod"  # in the path of a submodule that torch.compile(module) wraps; torch 2.14


def unwrap_compiled(module: Any) -> Any:
    """The module that ``torch.compile(module)`` wraps; any other object as it is. Read in torch 2.14: ``_orig_mod``.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> unwrap_compiled(torch.compile(linear)) is linear, unwrap_compiled(linear) is linear
        (True, True)
    """
    return getattr(module, WRAPPER_SEGMENT, module)


def module_settings(module: nn.Module) -> dict[str, Any]:
    """A module's attributes, and hooks of its forward and backward. Read in torch 2.14.

    Parameters, buffers, submodules and the hooks of state dicts, which change no output, are left out.

    Example:
        >>> {name: module_settings(nn.Linear(2, 3))[name] for name in ("in_features", "training")}
        {'in_features': 2, 'training': True}
    """
    return {
        name: value
        for name, value in vars(module).items()
        if name not in ("_parameters", "_buffers", "_modules") and "state_dict" not in name
    }


def add_summaries(writer: Any, summaries: Iterable[Any]) -> None:
    """Write protobuf summaries with a ``SummaryWriter``. Read in torch 2.14: ``SummaryWriter._get_file_writer``."""
    try:
        file_writer = writer._get_file_writer()
    except AttributeError:
        warn_missing("_get_file_writer", "The run is not in TensorBoard's HPARAMS table.")
        return
    for summary in summaries:
        file_writer.add_summary(summary)


def is_functorch_active() -> bool:
    """True within ``torch.func`` transforms such as grad and vmap. Read in torch 2.14.

    torch has no public test for it. If the private one is gone, this warns and returns False: a custom backward without
    ``setup_context`` then raises under a transform, it does not compute a wrong gradient.

    Example:
        >>> is_functorch_active(), torch.func.grad(lambda x: x * is_functorch_active())(torch.tensor(3.0))
        (False, tensor(1.))
    """
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    if active is None:
        warn_missing(
            "torch._C._are_functorch_transforms_active",
            "A custom backward raises under a transform: use tile_bytes=math.inf.",
        )
    return active is not None and bool(active())


def is_forward_mode_active() -> bool:
    """True within ``torch.autograd.forward_ad.dual_level``. Read in torch 2.14.

    If the private level counter is gone, this warns and returns False: a custom backward without ``jvp`` then raises in
    forward mode.

    Example:
        >>> with torch.autograd.forward_ad.dual_level():
        ...     is_forward_mode_active()
        True
    """
    level = getattr(torch.autograd.forward_ad, "_current_level", None)
    if level is None:
        warn_missing(
            "torch.autograd.forward_ad._current_level",
            "A custom backward raises under a transform: use tile_bytes=math.inf.",
        )
    return level is not None and int(level) >= 0


def is_tracing() -> bool:
    """True within ``torch.jit.trace``, which is deprecated in torch 2.14; False once it is gone.

    Example:
        >>> is_tracing()
        False
    """
    tracing = getattr(torch.jit, "is_tracing", None)
    return tracing is not None and bool(tracing())


def tensor_version(tensor: Tensor) -> int | None:
    """Number of in-place writes to a tensor so far, or None if torch has no such counter. Read in torch 2.14.

    Reading the counter needs no host-device sync; reading the tensor does.

    Example:
        >>> buffer = torch.zeros(())
        >>> before = tensor_version(buffer)
        >>> tensor_version(buffer.fill_(1)) - before
        1
    """
    version = getattr(tensor, "_version", None)
    return None if version is None else int(version)


class KeepsPrecision(nn.Module):
    """Mixin: ``.to(dtype)``, ``.half()`` and the like move floating-point state, but never to a narrower dtype.

    It overrides ``torch.nn.Module._apply``, the one method behind all conversions and moves (torch 2.14), which
    torchmetrics 1.9 extends to the states of a metric.

    Example:
        >>> class Average(KeepsPrecision):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.register_buffer("average", torch.zeros(1))
        >>> Average().bfloat16().average.dtype
        torch.float32
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Self:
        def move(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return fn(tensor)
            device = fn(torch.empty(0, device=tensor.device)).device
            if device.type == "mps" and tensor.dtype == torch.float64:  # MPS has no float64
                return tensor.to(device, torch.float32)
            narrower = fn(tensor.new_empty(0)).dtype.itemsize < tensor.dtype.itemsize
            return tensor.to(device) if narrower else fn(tensor)

        super()._apply(move, *args, **kwargs)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self


def supports_amp_scaling(optimizer: Optimizer) -> bool:
    """Whether an optimizer unscales gradients itself and skips a step by the gradient scaler's flag; torch 2.14.

    Example:
        >>> supports_amp_scaling(torch.optim.Adam([torch.zeros(1)], fused=True))
        True
    """
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
