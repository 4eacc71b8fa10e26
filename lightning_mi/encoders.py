"""Small encoders: modules that turn a view of a batch into the representation a critic scores."""

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn


@final
class OneHot(nn.Module):
    """Turns integer labels into one-hot vectors.

    Args:
        num_classes: C, at least 1; labels run from 0 to C - 1.

    Raises:
        ValueError: If ``num_classes`` < 1.

    Example:
        >>> OneHot(3)(torch.tensor([2, 0]))
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: one-hot vectors need at least one class.")
        self.num_classes = num_classes

    def forward(self, labels: Tensor) -> Tensor:
        """Encode labels: (N,) integers to (N, C) float32.

        Raises:
            ValueError: If ``labels`` are not integers, not of shape (N,), or outside 0 to C - 1.
        """
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(
                f"OneHot takes integer labels, but got {labels.dtype}. Convert class indices with .long()."
            )
        if labels.ndim != 1:
            raise ValueError(f"OneHot takes labels of shape (N,), but got {tuple(labels.shape)}. Flatten them first.")
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            index = int(outside.nonzero()[0, 0])
            raise ValueError(
                f"Label {int(labels[index])} at index {index} is out of range: OneHot({self.num_classes}) takes labels "
                f"from 0 to {self.num_classes - 1}. Raise num_classes or check the labels."
            )
        return nn.functional.one_hot(labels.long(), self.num_classes).float()

    def extra_repr(self) -> str:
        """The argument, for ``print(module)``."""
        return f"num_classes={self.num_classes}"


@final
class MLP(nn.Module):
    """A perceptron with ReLU units between its layers, over the flattened input.

    Args:
        in_dim: Number of features of one input, all its dimensions flattened.
        hidden: Width of the hidden layer, or one width for each; an empty list gives a linear map.
        out_dim: D, the features of the representation.

    Raises:
        ValueError: If a width is below 1.

    Example:
        >>> MLP(28 * 28, [64, 64], 16)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 16])
    """

    def __init__(self, in_dim: int, hidden: int | Sequence[int], out_dim: int) -> None:
        super().__init__()
        widths = [in_dim, *([hidden] if isinstance(hidden, int) else hidden), out_dim]
        if min(widths) < 1:
            raise ValueError(f"The layer widths {widths} (in_dim, hidden, out_dim) must all be at least 1.")
        self.in_dim = in_dim
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Encode inputs: (N, ...) with ``in_dim`` features each to (N, D).

        Raises:
            ValueError: If the inputs have another number of features.
        """
        features = x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)
        if features.shape[1] != self.in_dim:
            raise ValueError(
                f"MLP(in_dim={self.in_dim}) got inputs of shape {tuple(x.shape)}: {features.shape[1]} features each. "
                f"Set in_dim={features.shape[1]}, or check the batch."
            )
        encoded: Tensor = self.layers(features)
        return encoded
