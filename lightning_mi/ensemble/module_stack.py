"""Which modules differ in their numbers only, and how such modules become one."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

_NUMBERS = ("_parameters", "_buffers", "_modules")


def same_architecture(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules compute the same function of their parameters, buffers and inputs.

    They are of the same classes, with the same settings, and with numbers of the same shapes and types. A setting that
    cannot be compared counts as another one.

    Example:
        >>> alike(nn.Linear(2, 3), nn.Linear(2, 3)), alike(nn.Linear(2, 3), nn.Linear(2, 3, bias=False))
        (True, False)
    """
    if type(one) is not type(other) or _shapes(one) != _shapes(other) or not _same_settings(vars(one), vars(other)):
        return False
    mine, others = dict(one.named_children()), dict(other.named_children())
    return list(mine) == list(others) and all(same_architecture(mine[name], others[name]) for name in mine)


@final
class Stack:
    """The parameters and buffers of modules that are :func:`alike`, in one tensor for each name.

    The modules go on existing: what they hold are views of the stack, so what trains it trains them, and what loads
    numbers into them loads it.

    Args:
        modules: One or more, each with other numbers.

    Attributes:
        parameters: Of shape (K, ...) for K modules; leaves, to be trained.
        buffers: The same of what does not train.

    Example:
        >>> modules = [nn.Linear(2, 1), nn.Linear(2, 1)]
        >>> stack = Stack(modules)
        >>> with torch.no_grad():
        ...     _ = stack.parameters["bias"].copy_(torch.tensor([[5.0], [7.0]]))
        >>> modules[1].bias.item()
        7.0
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        parameters = [dict(module.named_parameters()) for module in modules]
        buffers = [dict(module.named_buffers()) for module in modules]
        self.parameters = {
            name: nn.Parameter(torch.stack([own[name].detach() for own in parameters]), first.requires_grad)
            for name, first in parameters[0].items()
        }
        self.buffers = {name: torch.stack([own[name] for own in buffers]) for name in buffers[0]}
        for index, (module, own) in enumerate(zip(modules, parameters, strict=True)):
            for name, parameter in own.items():
                parameter.data = self.parameters[name].data[index]
            for name, stacked in self.buffers.items():
                owner, _, last = name.rpartition(".")
                module.get_submodule(owner)._buffers[last] = stacked[index]

    def numbers(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and buffers, as ``torch.func.functional_call`` takes them."""
        return dict(self.parameters), dict(self.buffers)


def _shapes(module: nn.Module) -> dict[str, Any]:
    numbers = {**module._parameters, **module._buffers}
    return {
        name: tensor if tensor is None else (tensor.shape, tensor.dtype, tensor.requires_grad)
        for name, tensor in numbers.items()
    }


def _same_settings(mine: dict[str, Any], others: dict[str, Any]) -> bool:
    if mine.keys() != others.keys():
        return False
    try:
        return all(bool(mine[name] == others[name]) for name in mine if name not in _NUMBERS)
    except (RuntimeError, TypeError, ValueError):
        return False
