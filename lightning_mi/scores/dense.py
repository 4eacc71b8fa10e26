"""The scores of the marginal pairs, as the sums that bounds are made of; here from scores that are all there."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_mi.utilities.numerics import AnchoredExp, anchored_exp, log_mean, log_mean_exp


class AbstractMarginals(ABC):
    """Sums over the marginal pairs of this process. Those who divide them know the pairs of all processes.

    Attributes:
        weighted: The candidates have weights, which sum to 1 in each row.
    """

    weighted: bool = False

    @abstractmethod
    def log_mean_exp(self, count: int, offset: Tensor | None, clip: float | None, power: float) -> Tensor:
        """Log of the sum of exp(power * (clip(T) - offset)) over ``count``; a scalar, nats.

        Args:
            count: What the sum is divided by.
            offset: (M,) subtracted from the scores of each candidate.
            clip: Scores are first clamped to [-clip, clip].
            power: A factor in the exponent.
        """

    @abstractmethod
    def softplus_sum(self) -> Tensor:
        """The sum of log(1 + exp(T)); a scalar, nats."""

    @abstractmethod
    def row_log_mean_exp(self, alike: bool = False) -> Tensor:
        """(N,) log of the mean of exp(T) over the marginal and joint pairs of each row, nats.

        Args:
            alike: The caller promises that what it makes of the rows has the same gradient for each of them.
        """

    @abstractmethod
    def values(self, at_most: int | None = None) -> Tensor:
        """(K,) the scores in the order of the rows, thinned evenly to at most so many."""

    @abstractmethod
    def detach(self) -> AbstractMarginals:
        """The same scores without their autograd graph."""

    @abstractmethod
    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest score, without gradient; infinity and minus infinity where there is none."""


@final
class DenseMarginals(AbstractMarginals):
    """Scores that are all there, and reduced by ordinary autograd.

    Args:
        scores: (N, M), or (K,) of a list of pairs.
        mask: (N, M) boolean, True at marginal pairs; all are by default.
        non_marginal: (N, k) in place of a mask: the columns of each row that hold no marginal pair.
        columns: (K,) the candidate of each score of a list.
        log_weights: (M,) of the candidates; equal by default.
        row_mask: (N, M) boolean, True at the marginal and joint pairs of a row; all are by default.
        row_count: How many that is in each row, (N,), or in every row.

    Example:
        >>> DenseMarginals(torch.zeros(2, 3)).softplus_sum()  # 6 log 2
        tensor(4.1589)
    """

    def __init__(
        self,
        scores: Tensor,
        mask: Tensor | None = None,
        non_marginal: Tensor | None = None,
        columns: Tensor | None = None,
        log_weights: Tensor | None = None,
        row_mask: Tensor | None = None,
        row_count: Tensor | int = 1,
    ) -> None:
        self._scores = scores
        self._kept: Tensor | None = None
        self._exponentials: AnchoredExp | None = None  # once a bound has asked: metrics ask for their squares
        self._mask = mask
        self._unmarked = non_marginal
        self._columns = columns
        self._log_weights = log_weights
        self._row_mask = row_mask
        self._row_count = row_count
        self.weighted = log_weights is not None

    def log_mean_exp(self, count: int, offset: Tensor | None, clip: float | None, power: float) -> Tensor:
        """Log of a sum of exponentials, over a count."""
        if offset is None and clip is None and self._log_weights is None:
            if power == 1.0:
                exponentials = anchored_exp(self._marked())
                self._exponentials = AnchoredExp(exponentials.values.detach(), *exponentials[1:])
                return log_mean(exponentials, count)
            if power == 2.0 and self._exponentials is not None and not torch.is_grad_enabled():
                return log_mean(self._exponentials.squared(), count)
        changed = clip is not None or power <= 0  # where minus infinity would not stay what it is
        scores = self._scores if changed else self._marked()
        if clip is not None:
            scores = scores.clamp(-clip, clip)
        if offset is not None:
            scores = scores - (offset if self._columns is None else offset[self._columns])
        if power != 1.0:
            scores = power * scores
        scores = self._only_marked(scores) if changed else scores
        return log_mean_exp(scores, count=count, log_weights=self._log_weights)

    def softplus_sum(self) -> Tensor:
        """The sum of log(1 + exp(T))."""
        values = softplus(self._marked())
        return (values if self._log_weights is None else values * self._log_weights.exp()).sum()

    def row_log_mean_exp(self, alike: bool = False) -> Tensor:
        """(N,) by rows."""
        if self._log_weights is not None:
            return log_mean_exp(self._scores, count=1, dim=1, log_weights=self._log_weights)
        return log_mean_exp(self._scores, self._row_mask, count=self._row_count, dim=1)

    def values(self, at_most: int | None = None) -> Tensor:
        """(K,) the scores."""
        mask = self._mask
        if self._unmarked is not None:
            mask = all_but(self._scores, self._unmarked)
        values = self._scores.flatten() if mask is None else self._scores[mask]
        return values if at_most is None else values[:: stride(len(values), at_most)]

    def detach(self) -> DenseMarginals:
        """The same scores without their autograd graph; what has been computed is shared."""
        detached = copy.copy(self)
        detached._scores = self._scores.detach()
        detached._kept = None if self._kept is None else self._kept.detach()
        detached._log_weights = None if self._log_weights is None else self._log_weights.detach()
        return detached

    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest score."""
        values = self.values().detach()
        if not len(values):  # A process may hold no pair of a batch that others share.
            return values.new_tensor(math.inf), values.new_tensor(-math.inf)
        low, high = values.aminmax()
        return low, high

    def _marked(self) -> Tensor:
        """(N, M) the scores of the marginal pairs, elsewhere minus infinity; made once where autograd allows it."""
        if self._kept is None or (self._kept.requires_grad != self._scores.requires_grad and torch.is_grad_enabled()):
            self._kept = self._only_marked(self._scores)
        return self._kept

    def _only_marked(self, scores: Tensor) -> Tensor:
        if self._unmarked is not None:
            return scores.scatter(1, self._unmarked, -math.inf)
        return scores if self._mask is None else scores.masked_fill(~self._mask, -math.inf)


def all_but(scores: Tensor, columns: Tensor) -> Tensor:
    """(N, M) boolean, False at some columns of each row, (N, k).

    Example:
        >>> all_but(torch.zeros(2, 2), torch.tensor([[0], [1]]))
        tensor([[False,  True],
                [ True, False]])
    """
    return torch.ones(scores.shape, dtype=torch.bool, device=scores.device).scatter_(1, columns, False)


def stride(length: int, at_most: int) -> int:
    """Every how many of so many things are taken, so that there are at most so many.

    Example:
        >>> stride(10, 3), stride(3, 3)
        (4, 1)
    """
    return max(-(-length // at_most), 1)
