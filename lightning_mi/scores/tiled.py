"""The tiled form: reductions over the marginal pairs, and their gradients, in memory that does not grow with N x M.

A reduction returns a precomputed value plus a zero with a custom backward. There are two kinds of backward:

1. Gradient in forward. If the weights dL/dS of a tile are known up to a factor while the tile is in memory, one pass
   gives value and gradient: three matrix products for inner products, as many as the dense form. This holds for a
   log-mean-exp without clip and power, and for a mean over rows. The first reduction of a batch uses it if it can.
2. Deferred gradient. Any other reduction, and each one in a ring, computes its value in forward and its gradient in
   backward, in one more pass for all deferred reductions: four matrix products, however many reductions a bound and
   its regularizer use.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable
from typing import final

import torch
from torch import Tensor

from lightning_mi.exceptions import RingGatherError
from lightning_mi.scores.deferred_gradients import DeferredGradients, inputs_of, run_gradient, zero_with_gradient
from lightning_mi.scores.dense import AbstractMarginals, Exponent, stride
from lightning_mi.scores.pair_functions import AbstractPairFunction
from lightning_mi.scores.ring import RingPass
from lightning_mi.scores.tile_gradients import (
    AbstractWeights,
    FunctionWeights,
    LogMeanExpGradient,
    LogMeanExpWeights,
    RowMeanGradient,
    RowTotalWeights,
    RowWeights,
)
from lightning_mi.scores.tile_reductions import (
    AbstractTileReduction,
    Extremes,
    FunctionSum,
    RowSums,
    RowTotals,
    TilePass,
)

_SUMS_PER_PASS = 4  # deferred sums that share one pass; a bound with its regularizer has three at most


@final
class TiledMarginals(AbstractMarginals):
    """Scores that are computed in tiles of whole rows, and recomputed rather than saved.

    Args:
        tile_pass: Computes the scores, here or in a ring of ranks.
        joint: (N,) the scores of the joint pairs, by ordinary autograd.
        row_count: The number of marginal and joint pairs in a row.

    Example:
        >>> from lightning_mi.scores.tiles import ProductTiles
        >>> tiles, diagonal = ProductTiles(torch.ones(4, 2), torch.ones(4, 2)), torch.arange(4).unsqueeze(1)
        >>> marginals = TiledMarginals(TilePass(tiles, diagonal, torch.ones(4), tile_rows=2), torch.ones(4), 4)
        >>> marginals.log_mean_exp(12, Exponent())
        tensor(2.)
    """

    def __init__(self, tile_pass: TilePass | RingPass, joint: Tensor, row_count: int) -> None:
        self._pass, self._local = tile_pass, tile_pass.local
        self._joint = joint
        self._row_count = row_count
        self.collective = isinstance(tile_pass, RingPass)
        self._row_sums: RowSums | None = None  # of exp(T)
        self._results: dict[Hashable, Tensor] = {}  # with gradient, by reduction
        self._deferred: DeferredGradients | None = None

    def log_mean_exp(self, count: int, exponent: Exponent) -> Tensor:
        """Log of a sum of exponentials divided by a count."""
        if isinstance(self._pass, RingPass) and exponent.offset is not None:
            return self._without_offset(self._pass, exponent).log_mean_exp(count, Exponent(power=exponent.power))
        if not self._needs_grad(exponent.offset):
            if exponent.is_double:
                return self._read().log_mean_exp_double(count)
            return self._sums(exponent).log_mean_exp(count)
        if exponent.offset is not None:
            return self._log_mean_exp(count, exponent)
        return self._cached((count, exponent), lambda: self._log_mean_exp(count, exponent))

    def function_sum(self, function: AbstractPairFunction) -> Tensor:
        """Sum of a function of the scores."""
        return self._cached((function, self._needs_grad()), lambda: self._function_sum(function))

    def sum(self) -> Tensor:
        """Sum of T."""
        return self._row_totals().sum()

    def row_log_mean_exp(self, uniform_upstream: bool = False, with_joint: bool = True) -> Tensor:
        """(N,) log-mean-exp of each row."""
        with_joint = with_joint or self._row_count == 1  # no marginal pairs
        key = "rows", uniform_upstream, with_joint, self._needs_grad()
        return self._cached(key, lambda: self._row_log_mean_exp(uniform_upstream, with_joint))

    def row_mean(self) -> Tensor:
        """(N,) mean of each row."""
        return (self._row_totals() + self._joint) / self._row_count

    def values(self, at_most: int | None = None) -> Tensor:
        """(K,) the scores."""
        non_marginal = self._local.non_marginal.sort(dim=1).values
        per_row = self._local.tiles.shape[1] - non_marginal.shape[1]
        length = len(non_marginal) * per_row
        step = 1 if at_most is None else stride(length, at_most)
        indices = torch.arange(0, length, step, device=non_marginal.device)
        rows, columns = indices // per_row, indices % per_row
        for skipped in non_marginal.T:  # from left to right, shift columns past each non-marginal one
            columns += columns >= skipped[rows]
        return self._local.tiles.at(rows, columns)

    def detach(self) -> TiledMarginals:
        """The same scores without their autograd graph; row sums computed so far are shared."""
        detached = copy.copy(self)
        detached._joint = self._joint.detach()
        detached._pass = self._pass.detach()
        detached._local = detached._pass.local
        detached._results, detached._deferred = {}, None
        return detached

    def scaled(self, factor: float) -> TiledMarginals:
        """The same pairs with the scores times a factor, in tiles of their own."""
        joint = self._joint * factor
        return TiledMarginals(self._pass.scaled(factor, joint.detach()), joint, self._row_count)

    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest score."""
        extremes = Extremes(self._joint.detach())
        if self._local.tiles.shape[1]:
            self._local.run(extremes)
        return extremes.low, extremes.high

    def _log_mean_exp(self, count: int, exponent: Exponent) -> Tensor:
        tile_pass = self._pass
        deferred = self._deferred is not None or exponent.clip is not None or exponent.power != 1.0
        if deferred or isinstance(tile_pass, RingPass):
            sums = self._sums(exponent)
            return sums.log_mean_exp(count) + self._defer(LogMeanExpWeights(exponent, sums), exponent.offset)
        reduction = LogMeanExpGradient(tile_pass, exponent)
        tile_pass.run(reduction, differentiate=True)
        if exponent.is_identity:
            self._row_sums = reduction.sums
        zero = zero_with_gradient(
            inputs_of(tile_pass, exponent.offset),
            reduction.finish(),
            recompute=lambda: run_gradient(tile_pass, LogMeanExpGradient(tile_pass, exponent)),
        )
        return reduction.sums.log_mean_exp(count) + zero

    def _function_sum(self, function: AbstractPairFunction) -> Tensor:
        reduction = FunctionSum(function, self._local.joint)
        self._read(reduction)
        return reduction.total + self._defer(FunctionWeights(function)) if self._needs_grad() else reduction.total

    def _row_totals(self) -> Tensor:
        """(N,) sum of T over the marginal pairs of each row."""
        return self._cached(("totals", self._needs_grad()), self._compute_row_totals)

    def _compute_row_totals(self) -> Tensor:
        reduction = RowTotals(self._local.joint)
        self._read(reduction)
        if not self._needs_grad():
            return reduction.totals
        return reduction.totals + DeferredGradients(self._pass, [self._joint.shape]).append(RowTotalWeights())

    def _row_log_mean_exp(self, uniform_upstream: bool, with_joint: bool) -> Tensor:
        tile_pass = self._pass
        if not (uniform_upstream and self._needs_grad()) or isinstance(tile_pass, RingPass):
            return self._log_mean(self._row_log_sums(), with_joint)
        reduction = RowMeanGradient(tile_pass, with_joint)
        tile_pass.run(reduction, differentiate=True)
        self._row_sums = reduction.sums
        zero = zero_with_gradient(
            (*tile_pass.tiles.inputs, self._joint),
            reduction.finish(),
            recompute=lambda: run_gradient(tile_pass, RowMeanGradient(tile_pass, with_joint)),
        )
        return self._log_mean(reduction.sums.log_sums(), with_joint).detach() + zero

    def _row_log_sums(self) -> Tensor:
        """(N,) log of the sum of exp(T) over the marginal pairs of each row."""
        sums = self._read()
        if not self._needs_grad():
            return sums.log_sums()

        def compute() -> Tensor:
            zeros = DeferredGradients(self._pass, [self._joint.shape])
            return sums.log_sums() + zeros.append(RowWeights(sums))

        return self._cached("row log-sums", compute)

    def _log_mean(self, log_sums: Tensor, with_joint: bool) -> Tensor:
        if with_joint:
            return torch.logaddexp(log_sums, self._joint) - math.log(self._row_count)
        return log_sums - math.log(self._row_count - 1)

    def _sums(self, exponent: Exponent) -> RowSums:
        if exponent.is_identity:
            return self._read()
        sums = RowSums(exponent, self._local.joint)
        self._read(sums)
        return sums

    def _read(self, *reductions: AbstractTileReduction) -> RowSums:
        """Run reductions in one pass; also compute the row sums of exp(T) if they are missing, and return them."""
        sums = self._row_sums
        if sums is None:
            sums = RowSums(Exponent(), self._local.joint)
            reductions = (sums, *reductions)
        if reductions:
            self._pass.run(*reductions)
        self._row_sums = sums
        return sums

    def _cached(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        if key not in self._results:
            self._results[key] = compute()
        return self._results[key]

    def _needs_grad(self, offset: Tensor | None = None) -> bool:
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs_of(self._local, offset))

    def _defer(self, weights: AbstractWeights, offset: Tensor | None = None) -> Tensor:
        """A scalar zero whose gradient is computed in backward."""
        if offset is not None:  # the gradient of an offset belongs to its sum alone
            return DeferredGradients(self._pass, [()], offset).append(weights)
        if self._deferred is None or self._deferred.is_full:
            self._deferred = DeferredGradients(self._pass, [()] * _SUMS_PER_PASS)
        return self._deferred.append(weights)

    def _without_offset(self, ring: RingPass, exponent: Exponent) -> TiledMarginals:
        """The scores minus the exponent's offset, which then passes round with the candidates."""
        if exponent.offset is None or exponent.clip is not None:
            raise RingGatherError(
                f"Got clip={exponent.clip} and an offset with gather='ring': the offset passes round with the "
                "candidates and is subtracted before the scores are clipped. Pass one of them, or use gather=True."
            )
        return TiledMarginals(ring.with_offset(exponent.offset), self._joint, self._row_count)
