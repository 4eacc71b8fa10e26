"""LabelCritic: the logits of a classifier as scores."""

from typing import final

import torch
from torch import Tensor, nn

from lightning_mi.critics.base import AbstractCritic
from lightning_mi.utilities.checks import check_instance


@final
class LabelCritic(AbstractCritic):
    """T(x, y) = f(x)_y: the logit of label y; without a network, f is the identity.

    x are the encoder's outputs, one for each label, or the inputs of the network, and y are labels. A bound is then a
    loss for classification.

    Source: Choi and Lee 2022.

    Args:
        network: f, maps x to (N, C), one logit for each label; none by default.

    Raises:
        TypeError: In use, the labels are not integers.
        ValueError: In use, x or y has another shape, or a label is not in 0..C-1 for C outputs.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
        >>> LabelCritic().paired(logits, torch.tensor([2, 0]))
        tensor([2., 3.])
        >>> LabelCritic().pairwise(logits, torch.tensor([2, 0]))
        tensor([[2., 0.],
                [5., 3.]])
    """

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        if network is not None:
            check_instance("network", network, nn.Module, "torch.nn.Linear(x_dim, num_classes)")
        self.network = network

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) the output of row i of x (N, C) for label i of y (N,)."""
        x = x if self.network is None else self.network(x)
        y = _check(x, y)
        if len(x) != len(y):
            raise ValueError(f"Got {len(x)} x and {len(y)} labels: row i of both is one pair. Pass one label for each.")
        return x.gather(1, y.unsqueeze(1)).squeeze(1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) the outputs of every row of x (N, C) for every label of y (M,)."""
        x = x if self.network is None else self.network(x)
        return x[:, _check(x, y)]


def _check(x: Tensor, y: Tensor) -> Tensor:
    """The labels as int64."""
    if x.ndim != 2 or y.ndim != 1:
        raise ValueError(
            f"Got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: LabelCritic takes the encoder's outputs "
            "(N, C), one for each label, and labels (M,). Flatten the labels, or set the encoder's width to C."
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(
            f"Got y of type {y.dtype}: LabelCritic takes labels, which are integers. Pair it with "
            "pairs.EnumeratedLabels, or choose another critic for representations."
        )
    # Checked here: an accelerator's error for a wrong index contains neither the label nor the line, and a negative
    # index is valid in torch.
    outside = (y < 0) | (y >= x.shape[1])
    if bool(outside.any()):
        raise ValueError(
            f"Got label {int(y[outside][0])} for x of shape {tuple(x.shape)}: the encoder has {x.shape[1]} outputs, "
            f"for labels 0 to {x.shape[1] - 1}. Set its width to the number of labels."
        )
    return y.long()
