"""Reductions over the marginal pairs: the interface, and the dense form, with all scores in memory."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lightning_mi.scores.pair_functions import AbstractPairFunction
from lightning_mi.utilities.numerics import AnchoredExp, anchored_exp, log_mean, log_mean_exp

_MAX_KEPT_BYTES = 4 * 2**20  # of exponentials kept for metrics: above, tiles are the default, and memory matters more


@final
@dataclass(frozen=True)
class Exponent:
    """The exponent of a log-mean-exp: power * (clip(T) - offset).

    Attributes:
        offset: (M,) subtracted from the scores of each candidate.
        clip: Scores are first clamped to [-clip, clip].
        power: The factor.

    Example:
        >>> Exponent(clip=1.0, power=2.0).apply(torch.tensor([0.5, 3.0]))
        tensor([1., 2.])
    """

    offset: Tensor | None = None
    clip: float | None = None
    power: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether the exponent is T."""
        return self.offset is None and self.clip is None and self.power == 1.0

    @property
    def is_double(self) -> bool:
        """Whether the exponent is 2 T."""
        return self.offset is None and self.clip is None and self.power == 2.0

    def apply(self, scores: Tensor, columns: Tensor | None = None) -> Tensor:
        """The exponent of (..., M) scores or, with the candidate of each score in ``columns``, of a (K,) list."""
        x = scores if self.clip is None else scores.clamp(-self.clip, self.clip)
        if self.offset is not None:
            x = x - (self.offset if columns is None else self.offset[columns])
        return x if self.power == 1.0 else x * self.power


class AbstractMarginals(ABC):
    """Sums over the marginal pairs of this rank. The caller passes counts, which may be those of all ranks.

    Attributes:
        weighted: The candidates have weights, which sum to 1 in each row.
        collective: Every rank must call each reduction, also one without pairs.
    """

    weighted: bool = False
    collective: bool = False

    @abstractmethod
    def log_mean_exp(self, count: int, exponent: Exponent) -> Tensor:
        """Log of the sum of exp(exponent) divided by ``count``; a scalar, nats."""

    @abstractmethod
    def function_sum(self, function: AbstractPairFunction) -> Tensor:
        """Sum of a function of the scores; a scalar."""

    @abstractmethod
    def sum(self) -> Tensor:
        """Sum of T; a scalar, nats."""

    @abstractmethod
    def row_log_mean_exp(self, uniform_upstream: bool = False, with_joint: bool = True) -> Tensor:
        """(N,) log of the mean of exp(T) over the marginal and joint pairs of each row, nats.

        Args:
            uniform_upstream: The caller guarantees that grad_output of the result is the same for every row.
            with_joint: If False, only the marginal pairs; -inf for a row without any.
        """

    @abstractmethod
    def row_mean(self) -> Tensor:
        """(N,) mean of T over the marginal and joint pairs of each row, nats."""

    @abstractmethod
    def values(self, at_most: int | None = None) -> Tensor:
        """(K,) the scores in row order, evenly subsampled to at most this many; all by default.

        In a ring, those with the candidates of this rank. It needs no collective; nor does :meth:`extremes`.
        """

    @abstractmethod
    def detach(self) -> AbstractMarginals:
        """The same scores without their autograd graph."""

    @abstractmethod
    def scaled(self, factor: float) -> AbstractMarginals:
        """The same pairs with the scores times a factor, with gradient."""

    @abstractmethod
    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest score, without gradient; (inf, -inf) without marginal pairs."""


@final
class DenseMarginals(AbstractMarginals):
    """Scores that are all in memory, reduced by ordinary autograd.

    Args:
        scores: (N, M) matrix, or (K,) list of pairs.
        mask: (N, M) boolean, True at marginal pairs; all by default.
        non_marginal: (N, k) instead of a mask: the columns of each row that are not marginal pairs.
        columns: (K,) the candidate of each score of a list.
        log_weights: (M,) log-weights of the candidates; equal by default.
        row_mask: (N, M) boolean, True at the marginal and joint pairs of a row; all by default.
        row_count: Number of marginal and joint pairs of each row, (N,), or one number for every row.

    Example:
        >>> DenseMarginals(torch.ones(2, 3)).log_mean_exp(6, Exponent())
        tensor(1.)
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
        self._mask = mask
        self._non_marginal = non_marginal
        self._columns = columns
        self._log_weights = log_weights
        self._row_mask = row_mask
        self._row_count = row_count
        self._masked_scores: Tensor | None = None  # computed once for all reductions of T
        self._exponentials: AnchoredExp | None = None  # of T, without autograd graph; reused by metrics
        self.weighted = log_weights is not None

    def log_mean_exp(self, count: int, exponent: Exponent) -> Tensor:
        """Log of a sum of exponentials divided by a count."""
        if not torch.is_grad_enabled() and self._exponentials is not None:
            if exponent.is_identity:
                return log_mean(self._exponentials, count)
            if exponent.is_double:
                return log_mean(self._exponentials.squared(), count)
        x = self._masked_once() if exponent.is_identity else self._masked(exponent.apply(self._scores, self._columns))
        exponentials = anchored_exp(x, log_weights=self._log_weights)
        if exponent.is_identity and self._log_weights is None and x.nbytes <= _MAX_KEPT_BYTES:
            self._exponentials = exponentials.detached()
        return log_mean(exponentials, count)

    def function_sum(self, function: AbstractPairFunction) -> Tensor:
        """Sum of a function of the scores."""
        values = function.value(self._masked_once())
        return (values if self._log_weights is None else values * self._log_weights.exp()).sum()

    def sum(self) -> Tensor:
        """Sum of T."""
        values = self._masked(self._scores, 0.0)
        return (values if self._log_weights is None else values * self._log_weights.exp()).sum()

    def row_log_mean_exp(self, uniform_upstream: bool = False, with_joint: bool = True) -> Tensor:
        """(N,) log-mean-exp of each row."""
        if self._log_weights is not None:
            return log_mean_exp(self._scores, count=1, dim=1, log_weights=self._log_weights)
        mask = None if with_joint else self._marginal_mask()
        if mask is None:
            return log_mean_exp(self._scores, self._row_mask, count=self._row_count, dim=1)
        without = ~mask.any(dim=1, keepdim=True)
        mask = mask | (without if self._row_mask is None else without & self._row_mask)
        return log_mean_exp(self._scores, mask, count=mask.sum(dim=1), dim=1)

    def row_mean(self) -> Tensor:
        """(N,) mean of each row."""
        if self._log_weights is not None:
            return (self._scores * self._log_weights.exp()).sum(dim=1)
        scores = self._scores if self._row_mask is None else self._scores.masked_fill(~self._row_mask, 0.0)
        return scores.sum(dim=1) / self._row_count

    def values(self, at_most: int | None = None) -> Tensor:
        """(K,) the scores."""
        mask = self._marginal_mask()
        values = self._scores.flatten() if mask is None else self._scores[mask]
        return values if at_most is None else values[:: stride(len(values), at_most)]

    def detach(self) -> DenseMarginals:
        """The same scores without their autograd graph."""
        detached = copy.copy(self)
        detached._scores = self._scores.detach()
        detached._masked_scores = None if self._masked_scores is None else self._masked_scores.detach()
        detached._log_weights = None if self._log_weights is None else self._log_weights.detach()
        return detached

    def scaled(self, factor: float) -> DenseMarginals:
        """The same pairs with the scores times a factor."""
        scaled = copy.copy(self)
        scaled._scores = self._scores * factor
        scaled._masked_scores = scaled._exponentials = None
        return scaled

    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest score."""
        values = self.values().detach()
        if not len(values):  # a rank may have no marginal pair of the global batch
            return values.new_tensor(math.inf), values.new_tensor(-math.inf)
        low, high = values.aminmax()
        return low, high

    def _marginal_mask(self) -> Tensor | None:
        """Boolean, True at marginal pairs; None if all are."""
        return self._mask if self._non_marginal is None else all_but(self._scores, self._non_marginal)

    def _masked_once(self) -> Tensor:
        """The scores at marginal pairs, minus infinity elsewhere."""
        masked = self._masked_scores
        if masked is None or (torch.is_grad_enabled() and masked.requires_grad != self._scores.requires_grad):
            masked = self._masked_scores = self._masked(self._scores)
        return masked

    def _masked(self, x: Tensor, fill: float = -math.inf) -> Tensor:
        """The same numbers at marginal pairs, ``fill`` elsewhere."""
        if self._non_marginal is not None:
            return x.scatter(1, self._non_marginal, fill)
        return x if self._mask is None else x.masked_fill(~self._mask, fill)


def all_but(scores: Tensor, columns: Tensor) -> Tensor:
    """(N, M) boolean mask, False at some columns of each row.

    Args:
        scores: (N, M), for shape and device.
        columns: (N, k).

    Example:
        >>> all_but(torch.zeros(2, 2), torch.tensor([[0], [1]]))
        tensor([[False,  True],
                [ True, False]])
    """
    return torch.ones(scores.shape, dtype=torch.bool, device=scores.device).scatter_(1, columns, False)


def stride(length: int, at_most: int) -> int:
    """Step of a slice that evenly subsamples a sequence to at most this many entries.

    Example:
        >>> stride(10, 3), stride(3, 3)
        (4, 1)
    """
    return max(-(-length // at_most), 1)
