"""Detect modules with identical architecture and stack their parameters for ``torch.vmap``."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from lightning_mi._compat.torch_names import module_settings


def same_architecture(first: nn.Module, second: nn.Module) -> bool:
    """True if two modules compute the same function of their parameters, buffers and inputs.

    They have the same classes and settings, and parameters and buffers of the same shapes and types. A setting that
    cannot be compared counts as different.

    Example:
        >>> same_architecture(nn.Linear(2, 3), nn.Linear(2, 3))
        True
        >>> same_architecture(nn.Linear(2, 3), nn.Linear(2, 3, bias=False))
        False
    """
    if type(first) is not type(second) or _shapes(first) != _shapes(second) or not _same_settings(first, second):
        return False
    children, others = dict(first.named_children()), dict(second.named_children())
    return list(children) == list(others) and all(same_architecture(children[name], others[name]) for name in children)


@final
class ModuleStack:
    """Parameters and buffers of modules with the :func:`same_architecture`, stacked in one tensor for each name.

    The modules stay usable: their parameters and buffers become views of the stack. Training the stack trains them, and
    loading a state dict into a module loads it into the stack.

    Args:
        modules: K >= 1 modules that share no parameter.

    Attributes:
        parameters: (K, ...) leaf tensors by name.
        buffers: (K, ...) tensors by name.

    Example:
        >>> modules = [nn.Linear(2, 1), nn.Linear(2, 1)]
        >>> stack = ModuleStack(modules)
        >>> with torch.no_grad():
        ...     _ = stack.parameters["bias"].copy_(torch.tensor([[5.0], [7.0]]))
        >>> modules[1].bias.item()
        7.0
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        parameters = [dict(module.named_parameters()) for module in modules]
        buffers = [dict(module.named_buffers()) for module in modules]
        self.parameters = {
            name: nn.Parameter(torch.stack([named[name].detach() for named in parameters]), first.requires_grad)
            for name, first in parameters[0].items()
        }
        self.buffers = {name: torch.stack([named[name] for named in buffers]) for name in buffers[0]}
        for index, (module, named) in enumerate(zip(modules, parameters, strict=True)):
            for name, parameter in named.items():
                parameter.data = self.parameters[name].data[index]
            for name, stacked in self.buffers.items():
                parent, _, attribute = name.rpartition(".")
                setattr(module.get_submodule(parent), attribute, stacked[index])

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and buffers, the argument of ``torch.func.functional_call``."""
        return dict(self.parameters), dict(self.buffers)

    def trainable(self) -> list[nn.Parameter]:
        """The parameters that require a gradient."""
        return [parameter for parameter in self.parameters.values() if parameter.requires_grad]


def _shapes(module: nn.Module) -> dict[str, tuple[Any, ...]]:
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return {name: (tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors}


def _same_settings(first: nn.Module, second: nn.Module) -> bool:
    settings, others = module_settings(first), module_settings(second)
    if settings.keys() != others.keys():
        return False
    try:
        return all(bool(settings[name] == others[name]) for name in settings)
    except (RuntimeError, TypeError, ValueError):
        return False
