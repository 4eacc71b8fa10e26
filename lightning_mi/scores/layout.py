"""Layout: the joint and marginal pairs among the scores, and their rows."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mi.scores.checks import (
    check_has_rows,
)
from lightning_mi.scores.dense import AbstractMarginals, Exponent
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.pair_functions import AbstractPairFunction
from lightning_mi.utilities.distributed import world_size
from lightning_mi.utilities.numerics import log_mean_exp


@dataclass(frozen=True)
class Layout:
    """The joint and the marginal pairs of this rank.

    Attributes:
        joint: (J,) the scores of the joint pairs, float32 or wider.
        joint_columns: (J,) the candidate of each joint pair.
        marginals: The scores of the marginal pairs.
        num_marginal: The number of marginal pairs.
        num_rows: The number of rows.
        joint_rows: (J,) the row of each joint pair; None for lists of pairs, which have no rows.
        row_count: (N,) the number of pairs of each row, marginal and joint; an int if it is the same in every row.
        log_weights: (M,) the log-weights of the candidates in a row; None if equal.
        has_marginal: (N,) whether a row has a marginal pair; None if all rows have.
        joint_weights: (J,) the weights of the joint pairs in means over them; None if equal.
        separate_joint: The row of a joint pair holds this joint pair alone and the marginal pairs.
    """

    joint: Tensor
    joint_columns: Tensor
    marginals: AbstractMarginals
    num_marginal: int
    num_rows: int
    joint_rows: Tensor | None = None
    row_count: Tensor | int = 0
    log_weights: Tensor | None = None
    has_marginal: Tensor | None = None
    joint_weights: Tensor | None = None
    separate_joint: bool = False

    @property
    def longest_row(self) -> int | None:
        """The largest number of pairs in a row; None without rows or with unequal weights."""
        if self.joint_rows is None or self.marginals.weighted:
            return None
        if isinstance(self.row_count, int):
            return self.row_count
        return int(self.row_count.max()) if len(self.row_count) else 0

    @property
    def negatives_per_row(self) -> int | None:
        """Number of marginal pairs in each row, if each has one joint pair that is none of them; otherwise None."""
        return self.row_count - 1 if isinstance(self.row_count, int) and self.joint_rows is not None else None

    def counts(self, pooled: bool | GlobalCounts = False) -> GlobalCounts:
        """Counts of this rank's pairs; if ``pooled``, over all ranks, by an all-gather unless they are passed."""
        if isinstance(pooled, GlobalCounts):
            return pooled
        weight = None if self.joint_weights is None else float(self.joint_weights.sum())
        local = GlobalCounts(len(self.joint), self.num_marginal, self.num_rows, joint_weight=weight)
        if not pooled or world_size() == 1:
            return local
        return local._replace(longest_row=self.longest_row or 0).all_reduce(self.joint.device)

    def log_mean_exp(self, counts: GlobalCounts, exponent: Exponent) -> Tensor:
        """This rank's part of the log-mean-exp over the marginal pairs in ``counts``."""
        # The log of an empty sum, with a gradient of 0 and not NaN.
        if self.num_marginal == 0 and not self.marginals.collective:
            return self.marginals.values().sum() - math.inf
        return self.marginals.log_mean_exp(self._divisor(counts), exponent)

    def row_log_mean_exp(self, joint: bool, power: float = 1.0) -> Tensor:
        """(N,) log-mean-exp of power * T over each row's marginal pairs, with its joint pairs if ``joint``.

        Raises:
            ValueError: There are no rows.
        """
        check_has_rows(self.joint_rows)
        marginals = self.marginals if power == 1.0 else self.marginals.scaled(power)
        return marginals.row_log_mean_exp(with_joint=joint)

    def joint_row_log_mean_exp(self, joint: bool, uniform_upstream: bool = False) -> Tensor:
        """(J,) log-mean-exp of the row of each joint pair: of its marginal pairs, and its joint pairs if ``joint``.

        Args:
            joint: As in :meth:`row_log_mean_exp`. With ``separate_joint`` the row holds the one joint pair.
            uniform_upstream: As in :class:`AbstractMarginals`.

        Raises:
            ValueError: There are no rows.
        """
        rows = check_has_rows(self.joint_rows)
        if not (joint and self.separate_joint):
            uniform_upstream = uniform_upstream and self.joint_weights is None
            return self.marginals.row_log_mean_exp(uniform_upstream, joint)[rows]
        size = torch.as_tensor(self.row_count, device=rows.device)[rows].to(self.joint)  # marginal pairs and the joint
        log_sum = self.marginals.row_log_mean_exp(with_joint=False)[rows] + (size - 1).log()
        return torch.logaddexp(log_sum, self.joint) - size.log()

    def mean_over_joint(self, values: Tensor, counts: GlobalCounts) -> Tensor:
        """This rank's part of the mean of (J,) values over the joint pairs in ``counts``; 0 if there are none."""
        if self.joint_weights is None:
            return values.sum() / max(counts.num_joint, 1)
        return (values * self.joint_weights).sum() / (counts.joint_weight or 1.0)

    def joint_log_mean_exp(self, counts: GlobalCounts, power: float) -> Tensor:
        """This rank's part of log E_P[exp(power * T)] over the joint pairs in ``counts``; 0 if there are none."""
        if len(self.joint) == 0:  # the log of an empty sum, with a gradient of 0 and not NaN
            return self.joint.sum() - (math.inf if counts.num_joint else 0.0)
        if self.joint_weights is None:
            return log_mean_exp(power * self.joint, count=counts.num_joint)
        total = counts.joint_weight or 1.0
        return log_mean_exp(power * self.joint, count=1, log_weights=(self.joint_weights / total).log())

    def mean_over_marginal(self, function: AbstractPairFunction, counts: GlobalCounts) -> Tensor:
        """This rank's part of the mean of a function of the scores over the marginal pairs in ``counts``."""
        return self.marginals.function_sum(function) / self._divisor(counts)

    def mean(self, counts: GlobalCounts) -> Tensor:
        """This rank's part of the mean of T over the marginal pairs in ``counts``."""
        return self.marginals.sum() / self._divisor(counts)

    def _divisor(self, counts: GlobalCounts) -> int:
        # Weights sum to 1 in each row, so that a weighted mean divides by the number of rows.
        return counts.num_rows if self.marginals.weighted else counts.num_marginal

    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest score, without gradient; (inf, -inf) without pairs."""
        low, high = self.marginals.extremes()
        if len(self.joint) == 0:
            return low, high
        joint_low, joint_high = self.joint.detach().aminmax()
        return torch.minimum(low, joint_low), torch.maximum(high, joint_high)

    def detach(self) -> Layout:
        """The same pairs without their autograd graph."""
        return dataclasses.replace(self, joint=self.joint.detach(), marginals=self.marginals.detach())
