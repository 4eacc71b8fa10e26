"""Forward and backward pass of a perceptron by hand, for those who know what to keep and when to forget it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from lightning_mi.matrix_product import matrix_product


@final
class Perceptron:
    """Linear layers to one output, whose inputs are rectified: all that is kept of a pass are these inputs.

    Args:
        layers: Share no parameters; the last one has one output.

    Example:
        >>> perceptron = Perceptron([nn.Linear(3, 2), nn.Linear(2, 1)])
        >>> scores, kept = perceptron.forward(torch.ones(4, 3))
        >>> scores.shape, len(kept)
        (torch.Size([4]), 2)
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self._layers: list[tuple[Tensor, Tensor | None]] = [(layer.weight, layer.bias) for layer in layers]

    @classmethod
    def of(cls, network: nn.Module) -> Perceptron | None:
        """The same function as a network that is one: rectifiers and linear layers by turns. None of any other.

        Nor of one whose layers do more than their class says, because they have hooks or parametrizations.
        """
        modules = list(network) if type(network) is nn.Sequential else []
        rectifiers, layers = modules[::2], [one for one in modules[1::2] if type(one) is nn.Linear]
        if not layers or len(modules) != 2 * len(layers) or layers[-1].out_features != 1:
            return None
        if any(type(one) is not nn.ReLU for one in rectifiers) or any(map(_hooked, [network, *modules])):
            return None
        own = sum(1 + (layer.bias is not None) for layer in layers)
        return cls(layers) if len(list(network.parameters())) == own else None  # Fewer, if layers share one.

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(K,) outputs for (K, H), which are rectified in place, and what :meth:`backward` takes."""
        kept = []
        for weight, bias in self._layers:
            kept.append(x.relu_())
            x = matrix_product(x, weight.T)
            if bias is not None:
                x += bias
        return x.squeeze(1), kept

    @torch.no_grad()
    def backward(self, kept: list[Tensor], upstream: Tensor, into: Sequence[Tensor | None]) -> Tensor:
        """(K, H) the gradient of the input, from that of the outputs, (K,); those of the parameters are added.

        Args:
            kept: From :meth:`forward`; it is used up.
            upstream: Of the outputs.
            into: For each parameter, in the order of the network; None where none is needed.
        """
        of_rows, totals = upstream.unsqueeze(1), list(into)
        for weight, bias in reversed(self._layers):
            x = kept.pop()
            if bias is not None and (of_bias := totals.pop()) is not None:
                of_bias += of_rows.sum(dim=0)
            if (of_weight := totals.pop()) is not None:
                of_weight += matrix_product(of_rows.T, x)
            of_rows = of_rows * weight if len(weight) == 1 else matrix_product(of_rows, weight)
            torch.ops.aten.threshold_backward.grad_input(of_rows, x, 0, grad_input=of_rows)
        return of_rows


def _hooked(module: nn.Module) -> bool:
    return any(getattr(module, f"_{kind}_hooks") for kind in ("forward", "forward_pre", "backward", "backward_pre"))
