"""Critics without parameters: the encoder has already made its representations comparable."""

import math
from typing import final

from torch import Tensor
from torch.nn.functional import normalize

from lightning_mi.critics.base import AbstractCritic, check_shapes


@final
class InnerProductCritic(AbstractCritic):
    """T(x, y) = x . y, for representations that an encoder has already made comparable. It has no parameters.

    Source: Choi and Lee 2022 (plain); Chen et al. 2020 (normalized, with a temperature).

    Args:
        normalize: Scale x and y to unit length first, so that scores are cosines.
        temperature: Divides the scores.
        scaled: Divide by sqrt(D) too, which keeps scores of unit variance at any width D.

    Raises:
        ValueError: The temperature is not positive, or x and y differ in width.

    Example:
        >>> import torch
        >>> x = torch.tensor([[3.0, 4.0]])
        >>> InnerProductCritic().paired(x, x), InnerProductCritic(normalize=True, temperature=0.5).paired(x, x)
        (tensor([25.]), tensor([2.]))
    """

    def __init__(self, normalize: bool = False, temperature: float = 1.0, scaled: bool = False) -> None:
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"Got temperature={temperature}: it divides the scores, so it is a positive number.")
        self.normalize = normalize
        self.temperature = temperature
        self.scaled = scaled

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        x, y = self._prepare(x, y)
        return (x * y).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        x, y = self._prepare(x, y)
        return x @ y.T

    def _prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        check_shapes(x, y, x.shape[-1], x.shape[-1])
        if self.normalize:
            x, y = normalize(x, dim=-1), normalize(y, dim=-1)
        factor = 1 / (self.temperature * (math.sqrt(x.shape[-1]) if self.scaled else 1.0))
        return (x if factor == 1.0 else x * factor), y


@final
class LabelCritic(AbstractCritic):
    """T(x, y) = f(x)_y: the entry of the logits f(x) that belongs to the label y. It has no parameters.

    Source: Choi and Lee 2022, the supervised benchmark.

    Raises:
        ValueError: The logits are not of shape (N, C), or the labels not integers of shape (M,) below C.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> LabelCritic().paired(logits, torch.tensor([2, 0]))
        tensor([3., 4.])
    """

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of logits x (N, C) and labels y (N,)."""
        _check_logits(x, y)
        return x.gather(1, y.unsqueeze(1)).squeeze(1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of logits x (N, C) and labels y (M,)."""
        _check_logits(x, y)
        return x[:, y]


def _check_logits(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 1 or y.is_floating_point():
        raise ValueError(
            f"Got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)} and type {y.dtype}: LabelCritic takes "
            "logits (N, C) and integer labels (M,). Let the encoder give one logit for each class."
        )
    if y.numel() and int(y.max()) >= x.shape[1]:
        raise ValueError(
            f"Got logits of {x.shape[1]} classes for labels up to {int(y.max())}: the encoder gives one logit for each "
            f"class, so its output width is at least {int(y.max()) + 1}."
        )
