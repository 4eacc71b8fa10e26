"""Perceptrons that go forward and backward by hand: fewer copies, and matrix products by the quicker library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.modules.module import _has_any_global_hook

from lightning_mi.deferred import torch_looks_within
from lightning_mi.matrix_product import WORTH_IT, matrix_product, weight_gradient


@final
class MLP(nn.Sequential):
    """Linear layers and rectifiers by turns, on a CPU by hand where that is faster; gradients of gradients too.

    Example:
        >>> MLP(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))(torch.zeros(4, 3)).shape
        torch.Size([4, 1])
    """

    def forward(self, input: Tensor) -> Tensor:
        """(K, O) for (K, H)."""
        perceptron = Perceptron.of(self)
        if perceptron is not None and perceptron.is_quicker_for(input):
            return perceptron(input)
        output: Tensor = super().forward(input)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return output


@final
class Perceptron:
    """Linear layers with rectifiers between them: all that is kept of a pass are the layers' inputs.

    Args:
        layers: Share no parameters.
        rectifies_input: Whether there is a rectifier before the first layer too.

    Attributes:
        rectifies_input: As given.
        parameters: Of all layers, in order.

    Example:
        >>> perceptron = Perceptron([nn.Linear(3, 2), nn.Linear(2, 1)], rectifies_input=True)
        >>> with torch.no_grad():
        ...     outputs, kept = perceptron.forward(torch.ones(4, 3))
        >>> outputs.shape, len(kept)
        (torch.Size([4, 1]), 2)
    """

    def __init__(self, layers: Sequence[nn.Linear], rectifies_input: bool) -> None:
        self._layers: list[tuple[Tensor, Tensor | None]] = [(layer.weight, layer.bias) for layer in layers]
        self.rectifies_input = rectifies_input
        self.parameters = [one for layer in self._layers for one in layer if one is not None]

    @classmethod
    def of(cls, network: nn.Module) -> Perceptron | None:
        """The same function as a network that is one: rectifiers and linear layers by turns. None of any other.

        Nor of one whose layers do more than their class says, because they have hooks or parametrizations.
        """
        # Asked at every step of a small critic: what is written shortest here would cost as much as a layer.
        if type(network) not in (MLP, nn.Sequential) or _has_hooks(network):
            return None
        layers: list[nn.Linear] = []
        rectifies_input = rectified = False
        for one in network._modules.values():
            if type(one) is nn.ReLU and not rectified and not _has_hooks(one):
                rectifies_input, rectified = rectifies_input or not layers, True
            elif type(one) is nn.Linear and (rectified or not layers) and not _has_hooks(one):
                layers.append(one)
                rectified = False
            else:
                return None
        if not layers or rectified or _has_any_global_hook():  # type: ignore[no-untyped-call]  # torch leaves it so
            return None
        found = cls(layers, rectifies_input)
        return found if len(set(map(id, found.parameters))) == len(found.parameters) else None

    def is_quicker_for(self, x: Tensor, copies: int = 1) -> bool:
        """Whether what is gained by hand is more than what the call costs, and torch need not see each operation.

        Args:
            x: The input, or rows like those of it.
            copies: How many times as many rows the input has.
        """
        return (
            x.ndim == 2
            and x.is_cpu
            and copies * len(x) * max(weight.numel() for weight, _ in self._layers) >= WORTH_IT
            and {x.dtype, *(one.dtype for one in self.parameters)} == {torch.float32}
            and not torch.is_autocast_enabled("cpu")
            and not torch_looks_within()
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(K, O) outputs for (K, H), as autograd knows them."""
        output: Tensor = _Pass.apply(self, x, *self.parameters)
        return output

    def forward(self, x: Tensor, overwrite: bool = False) -> tuple[Tensor, list[Tensor]]:
        """(K, O) outputs for (K, H), and what :meth:`backward` takes; for a caller outside of autograd.

        Args:
            x: The input.
            overwrite: Whether it may be written to.
        """
        if self.rectifies_input:
            x = x.relu_() if overwrite else x.relu()
        kept = []
        for number, (weight, bias) in enumerate(self._layers, start=1):
            kept.append(x)
            x = matrix_product(x, weight.T, bias, rectify=number < len(self._layers))
        return x, kept

    def backward(self, kept: Sequence[Tensor], upstream: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """The gradients of the input, (K, H), and of the parameters, from that of the outputs, (K, O); likewise.

        Args:
            kept: From :meth:`forward`.
            upstream: Of the outputs.
            wanted: Of the input and of each parameter, in their order; None is given where it is False.
        """
        of_rows, parts, asked = upstream, list[Tensor | None](), list(wanted)
        for number in reversed(range(len(self._layers))):
            (weight, bias), x = self._layers[number], kept[number]
            if bias is not None:
                parts.append(of_rows.sum(dim=0) if asked.pop() else None)
            parts.append(weight_gradient(of_rows, x) if asked.pop() else None)
            if number == 0 and not asked[0]:
                return [None, *reversed(parts)]
            of_rows = of_rows * weight if len(weight) == 1 else matrix_product(of_rows, weight)
            if number or self.rectifies_input:
                torch.ops.aten.threshold_backward.grad_input(of_rows, x, 0, grad_input=of_rows)
        return [of_rows, *reversed(parts)]

    def plainly(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The same outputs of given parameters, by ordinary autograd."""
        left = list(parameters)
        for number, (_, bias) in enumerate(self._layers):
            if number or self.rectifies_input:
                x = x.relu()
            x = linear(x, left.pop(0), None if bias is None else left.pop(0))
        return x


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, perceptron: Perceptron, *inputs: Tensor) -> Tensor:
        output, kept = perceptron.forward(inputs[0])
        ctx.perceptron = perceptron
        ctx.save_for_backward(*inputs, *kept)
        return output

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        perceptron, wanted = ctx.perceptron, ctx.needs_input_grad[1:]
        saved = ctx.saved_tensors
        inputs, kept = saved[: len(wanted)], saved[len(wanted) :]
        if not torch.is_grad_enabled():
            return None, *perceptron.backward(kept, upstream, wanted)
        return None, *gradients_again(perceptron.plainly(inputs[0], inputs[1:]), inputs, upstream, wanted)


def gradients_again(
    output: Tensor, inputs: Sequence[Tensor], upstream: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients that can be differentiated again, of an output that was made once more so that autograd sees how.

    Args:
        output: The same function of the inputs, by ordinary autograd.
        inputs: With respect to which.
        upstream: The gradient of the output.
        wanted: Of each input; None is given where it is False.
    """
    leaves = [one for one, is_wanted in zip(inputs, wanted, strict=True) if is_wanted]
    found = iter(torch.autograd.grad(output, leaves, upstream, create_graph=True))
    return [next(found) if is_wanted else None for is_wanted in wanted]


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
