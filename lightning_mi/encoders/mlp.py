"""MLP: a multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from typing import final

from torch import Tensor, nn

from lightning_mi.utilities.checks import check_whole


@final
class MLP(nn.Module):
    """Multilayer perceptron: linear layers with ReLU between them, applied to the flattened input.

    Args:
        in_dim: Features of one input, all its dimensions flattened.
        hidden: Width of the hidden layer, or one width for each; an empty list gives a linear map.
        out_dim: Features D of the output.
        bias: Whether the last layer has a bias. Hidden layers always have one.

    Raises:
        TypeError: If a width is not a whole number.
        ValueError: If a width is below 1.

    Example:
        >>> import torch
        >>> MLP(28 * 28, [64, 64], out_dim=16)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 16])
    """

    def __init__(self, in_dim: int, hidden: int | Sequence[int], *, out_dim: int, bias: bool = True) -> None:
        super().__init__()
        hidden_widths = [hidden] if isinstance(hidden, int) else list(hidden)
        check_whole("in_dim", in_dim, 1)
        check_whole("out_dim", out_dim, 1)
        for width in hidden_widths:
            check_whole("hidden", width, 1)
        self.in_dim = in_dim
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([in_dim, *hidden_widths]):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(inplace=True)]
        last_width = hidden_widths[-1] if hidden_widths else in_dim
        self.layers = nn.Sequential(*layers, nn.Linear(last_width, out_dim, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        """Encode inputs: (N, ...) with ``in_dim`` features each to (N, D). Inputs of shape (N,) have one feature each.

        Raises:
            ValueError: If the inputs have another number of features.
        """
        features = x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)
        if features.shape[1] != self.in_dim:
            raise ValueError(
                f"Got inputs of shape {tuple(x.shape)}, {features.shape[1]} features each: MLP(in_dim={self.in_dim}) "
                f"needs {self.in_dim}. Set in_dim={features.shape[1]}, or check the batch."
            )
        encoded: Tensor = self.layers(features)
        return encoded
