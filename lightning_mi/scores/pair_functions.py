"""Functions of one score whose mean over the marginal pairs is a reduction, with their derivatives for tiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_mi.utilities.numerics import squared_sigmoid


class AbstractPairFunction(ABC):
    """An elementwise function of scores. Value and derivative are 0 at minus infinity, the score of no pair.

    Two functions that are equal have equal values; reductions of tiles are stored by function.
    """

    @abstractmethod
    def value(self, scores: Tensor) -> Tensor:
        """The function, by ordinary autograd; of the shape of the scores."""

    @abstractmethod
    def value_into(self, scores: Tensor, out: Tensor) -> Tensor:
        """The function, without autograd, written to ``out``."""

    @abstractmethod
    def derivative(self, scores: Tensor, out: Tensor | None = None) -> Tensor:
        """The derivative, without autograd, written to ``out`` or a new tensor."""


@final
@dataclass(frozen=True)
class Softplus(AbstractPairFunction):
    """The logistic loss: log(1 + exp(T - shift)).

    Attributes:
        shift: Subtracted from the scores; nats.

    Example:
        >>> Softplus().value(torch.zeros(2))  # log 2
        tensor([0.6931, 0.6931])
    """

    shift: float = 0.0

    def value(self, scores: Tensor) -> Tensor:
        """The softplus of the shifted scores."""
        # Above its threshold torch returns T itself: at the default of 20 this is off by 2e-9.
        return softplus(self._shifted(scores), threshold=40.0)

    def value_into(self, scores: Tensor, out: Tensor) -> Tensor:
        """The softplus of the shifted scores."""
        return torch.logaddexp(self._shifted(scores, out), out.new_zeros(()), out=out)

    def derivative(self, scores: Tensor, out: Tensor | None = None) -> Tensor:
        """The logistic function."""
        return torch.sigmoid(self._shifted(scores, out), out=out)

    def _shifted(self, scores: Tensor, out: Tensor | None = None) -> Tensor:
        return scores if self.shift == 0 else torch.sub(scores, self.shift, out=out)


@final
@dataclass(frozen=True)
class SquaredSigmoid(AbstractPairFunction):
    """The Brier score of a marginal pair: the squared logistic function of T - shift.

    Attributes:
        shift: Subtracted from the scores; nats.

    Example:
        >>> SquaredSigmoid().value(torch.zeros(2))
        tensor([0.2500, 0.2500])
    """

    shift: float = 0.0

    def value(self, scores: Tensor) -> Tensor:
        """The square of the logistic function."""
        return squared_sigmoid(scores - self.shift)

    def value_into(self, scores: Tensor, out: Tensor) -> Tensor:
        """The square of the logistic function."""
        return torch.sub(scores, self.shift, out=out).sigmoid_().square_()

    def derivative(self, scores: Tensor, out: Tensor | None = None) -> Tensor:
        """Twice the square times one minus the logistic function."""
        other = torch.sub(self.shift, scores).sigmoid_()
        return torch.sub(scores, self.shift, out=out).sigmoid_().square_().mul_(other).mul_(2)
