"""The scores of the marginal pairs in tiles: every sum, and its gradient, in memory that does not grow with N x M.

Where the weights dL/dS of a tile are known up to one factor while the tile is there, a single sweep gives the value and
the gradient: for inner products with three matrix products, as many as the dense form has. So it is for the first sum
that is asked for, if it is a log-mean-exp without a clip, or a mean over rows. Any other sum waits for backward, which
makes the tiles once more and serves all of them: four matrix products, however many sums a bound and its regularizer
read. Either way what is returned is a plain value plus a zero that autograd knows the gradient of.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence
from typing import final

import torch
from torch import Tensor

from lightning_mi.scores.custom_gradient import zeros_with_gradient
from lightning_mi.scores.dense import AbstractMarginals, stride
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.tile_reductions import Exponent, RowSums, TilePass, Weights
from lightning_mi.scores.tiles import AbstractTiles

_PLAIN = Exponent()
_AT_ONCE = 4  # How many sums share one sweep in backward; another serves what is more.


@final
class TiledMarginals(AbstractMarginals):
    """Scores that are made in tiles of whole rows, and made again rather than kept.

    Args:
        tiles: Make them.
        columns: Which entry of each row is its joint pair, and which is none.
        joint: (N,) the scores of the joint pairs, by ordinary autograd.
        tile_rows: How many rows a tile holds.

    Example:
        >>> from lightning_mi.scores.tiles import Products
        >>> tiles, columns = Products(torch.ones(4, 2), torch.ones(4, 2)), JointColumns(torch.arange(4))
        >>> marginals = TiledMarginals(tiles, columns, torch.ones(4), tile_rows=2)
        >>> marginals.log_mean_exp(12, None, None, 1.0)
        tensor(2.)
    """

    def __init__(self, tiles: AbstractTiles, columns: JointColumns, joint: Tensor, tile_rows: int) -> None:
        self._sweep = TilePass(tiles, columns.non_marginal, joint.detach(), tile_rows)
        self._joint = joint
        self._row_count = columns.row_count(tiles.shape[1])
        self._asked: dict[Hashable, Tensor] = {}
        self._offsets: list[Tensor | None] = []
        self._plain: RowSums | None = None
        self._served: list[Weights] = []
        self._free: list[Tensor] = []

    def log_mean_exp(self, count: int, offset: Tensor | None, clip: float | None, power: float) -> Tensor:
        """Log of a sum of exponentials, over a count."""
        exponent = Exponent(offset, clip, power)
        if not self._differentiable(offset):
            squared = Exponent(offset, clip).is_plain and power == 2.0
            return self._sums(_PLAIN if squared else exponent).log_mean_exp(count, squared)
        self._offsets.append(offset)  # Held, so that no other can get its id.
        return self._once((id(offset), clip, power, count), lambda: self._log_mean_exp(exponent, count))

    def softplus_sum(self) -> Tensor:
        """The sum of log(1 + exp(T))."""
        return self._once(("softplus", self._differentiable()), self._softplus_sum)

    def row_log_mean_exp(self, uniform_upstream: bool = False) -> Tensor:
        """(N,) by rows."""
        return self._once(
            ("rows", uniform_upstream, self._differentiable()), lambda: self._row_log_mean_exp(uniform_upstream)
        )

    def values(self, at_most: int | None = None) -> Tensor:
        """(K,) the scores."""
        non_marginal = self._sweep.non_marginal.sort(dim=1).values
        in_row = self._sweep.tiles.shape[1] - non_marginal.shape[1]
        length = len(non_marginal) * in_row
        index_rows = torch.arange(
            0, length, 1 if at_most is None else stride(length, at_most), device=non_marginal.device
        )
        rows, columns = index_rows // in_row, index_rows % in_row
        for passed in non_marginal.T:  # Step over what is no marginal pair, from left to right.
            columns += columns >= passed[rows]
        return self._sweep.tiles.at(rows, columns)

    def detach(self) -> TiledMarginals:
        """The same scores without their autograd graph; the row sums that have been computed are shared."""
        detached = copy.copy(self)
        detached._joint = self._joint.detach()
        detached._sweep = dataclasses.replace(self._sweep, tiles=self._sweep.tiles.detach())
        detached._asked, detached._offsets, detached._served, detached._free = {}, [], [], []
        return detached

    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest score."""
        return self._sweep.extremes()

    # What is new is read here; what autograd shall ask for is attached.

    def _log_mean_exp(self, exponent: Exponent, count: int) -> Tensor:
        if self._served or exponent.clip is not None or exponent.power != 1.0:
            sums = self._sums(exponent)
            zero = self._zero_of_weights(exponent.weights(sums, self._sweep.non_marginal), exponent.offset)
        else:
            sweep = self._sweep
            sums, gradient = sweep.exp_with_gradient(exponent)
            zero = _zero_of_gradient(
                gradient.parts, self._inputs(exponent.offset), lambda: sweep.exp_with_gradient(exponent)[1].parts
            )
            if exponent.is_plain:
                self._plain = sums
        return sums.log_mean_exp(count) + zero

    def _softplus_sum(self) -> Tensor:
        total, self._plain = self._sweep.read_softplus()
        if not self._differentiable():
            return total
        return total + self._zero_of_weights(lambda scores, rows, grad_output, _: scores.sigmoid().mul_(grad_output))

    def _row_log_mean_exp(self, uniform_upstream: bool) -> Tensor:
        if not self._differentiable():
            return self._rows(self._sums().logarithms())
        if uniform_upstream:
            sweep = self._sweep
            self._plain, gradient = sweep.rows_with_gradient()
            rows = self._rows(self._plain.logarithms()).detach()
            inputs = [*self._inputs(), self._joint]
            return rows + _zero_of_gradient(gradient, inputs, lambda: sweep.rows_with_gradient()[1])
        sums = self._sums()
        (zeros,) = _zeros_of_sweep(self._sweep, [sums.weights()], [self._joint.shape])
        return self._rows(sums.logarithms() + zeros)

    def _rows(self, logarithms: Tensor) -> Tensor:
        return torch.logaddexp(logarithms, self._joint) - math.log(self._row_count)

    def _sums(self, exponent: Exponent = _PLAIN) -> RowSums:
        """Those of an exponent; the plain one's come with any other's."""
        if self._plain is None:
            self._plain, *others = self._sweep.read(_PLAIN, *([] if exponent.is_plain else [exponent]))
        elif not exponent.is_plain:
            others = self._sweep.read(exponent)
        return self._plain if exponent.is_plain else others[0]

    def _once(self, key: Hashable, ask: Callable[[], Tensor]) -> Tensor:
        if key not in self._asked:
            self._asked[key] = ask()
        return self._asked[key]

    def _inputs(self, offset: Tensor | None = None) -> Sequence[Tensor]:
        return self._sweep.tiles.inputs if offset is None else (*self._sweep.tiles.inputs, offset)

    def _differentiable(self, offset: Tensor | None = None) -> bool:
        return torch.is_grad_enabled() and any(one.requires_grad for one in self._inputs(offset))

    def _zero_of_weights(self, weights: Weights, offset: Tensor | None = None) -> Tensor:
        """A zero whose gradient waits for backward, and comes in the same sweep as those of other such zeros."""
        if offset is not None:  # Its gradient is of its own sum alone.
            return _zeros_of_sweep(self._sweep, [weights], [()], offset)[0]
        if not self._free:
            self._served = []
            self._free = list(_zeros_of_sweep(self._sweep, self._served, [()] * _AT_ONCE))
        self._served.append(weights)
        return self._free.pop(0)


def _zeros_of_sweep(
    sweep: TilePass, served: list[Weights], shapes: Sequence[tuple[int, ...]], offset: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Zeros whose gradients come from one sweep, in backward: those of the sums that have these weights by then."""

    def backward(grad_output: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        pairs = zip(served, grad_output, strict=False)
        return sweep.gradient([(weights, of_sum) for weights, of_sum in pairs if of_sum is not None], offset).parts

    inputs = sweep.tiles.inputs if offset is None else (*sweep.tiles.inputs, offset)
    return zeros_with_gradient(backward, inputs, shapes, sweep.joint)


def _zero_of_gradient(
    gradient: Sequence[Tensor | None], inputs: Sequence[Tensor], recompute: Callable[[], Sequence[Tensor | None]]
) -> Tensor:
    """A zero whose gradient is known, and handed over: if it is asked for again, it is made again."""
    known = [gradient]

    def backward(grad_output: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        (factor,) = grad_output
        parts = known.pop() if known else recompute()
        for part in parts:
            if part is not None and factor is not None:
                part *= factor
        return parts

    (zero,) = zeros_with_gradient(backward, inputs, [()], inputs[0])
    return zero
