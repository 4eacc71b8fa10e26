"""OneHot: labels as one-hot vectors."""

from typing import final

import torch
from torch import Tensor, nn

from lightning_mi.utilities.checks import check_whole


@final
class OneHot(nn.Module):
    """One-hot encoding of integer labels.

    Args:
        num_classes: C, at least 1; labels run from 0 to C - 1.

    Raises:
        TypeError: If ``num_classes`` is not a whole number.
        ValueError: If ``num_classes`` < 1.

    Example:
        >>> OneHot(3)(torch.tensor([2, 0]))
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        check_whole("num_classes", num_classes, 1)
        self.num_classes = num_classes

    def forward(self, labels: Tensor) -> Tensor:
        """Encode labels: (N,) integers to (N, C) float32.

        Raises:
            ValueError: If ``labels`` are not integers, not of shape (N,), or outside 0 to C - 1.
        """
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(
                f"Got labels of {labels.dtype}: OneHot encodes integers. Convert class indices with .long()."
            )
        if labels.ndim != 1:
            raise ValueError(f"Got labels of shape {tuple(labels.shape)}: OneHot encodes (N,). Flatten them first.")
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            index = int(outside.nonzero()[0, 0])
            raise ValueError(
                f"Got label {int(labels[index])} at index {index}: labels of OneHot({self.num_classes}) run from 0 to "
                f"{self.num_classes - 1}. Raise num_classes or check the labels."
            )
        return nn.functional.one_hot(labels.long(), self.num_classes).float()

    def extra_repr(self) -> str:
        """The argument, for ``print(module)``."""
        return f"num_classes={self.num_classes}"
