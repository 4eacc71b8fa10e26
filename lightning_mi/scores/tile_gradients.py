"""Gradients of reductions over tiled scores, accumulated tile by tile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lightning_mi.scores.dense import Exponent
from lightning_mi.scores.pair_functions import AbstractPairFunction
from lightning_mi.scores.tile_reductions import AbstractTileReduction, RowSums, Tile, TilePass
from lightning_mi.utilities.numerics import shifted_exp


@final
class TileGradient:
    """Accumulators for the gradient of the inputs of tiles, and of an offset that is subtracted from their columns.

    Args:
        tile_pass: The tiles.
        offset: (M,), or None.
        inputs: Accumulators to add to; zeros by default.

    Attributes:
        inputs: Accumulators for the inputs of the tiles; None for an input that needs no gradient.
        offset: (M,) accumulator for the offset; None if it needs no gradient.
    """

    def __init__(
        self, tile_pass: TilePass, offset: Tensor | None = None, inputs: list[Tensor | None] | None = None
    ) -> None:
        self.inputs = tile_pass.tiles.accumulators() if inputs is None else inputs
        self.offset = torch.zeros_like(offset) if offset is not None and offset.requires_grad else None
        self._has_offset = offset is not None

    @property
    def parts(self) -> list[Tensor | None]:
        """The accumulators of the inputs and, if there is an offset, of the offset."""
        return [*self.inputs, self.offset] if self._has_offset else self.inputs

    def scale_(self, factor: Tensor) -> None:
        """Multiply by a scalar, in place."""
        for part in self.parts:
            if part is not None:
                part *= factor


@final
class LogMeanExpGradient(AbstractTileReduction):
    """Value and gradient of a log-mean-exp in one pass.

    The gradient of the log-sum-exp is sum_ij exp(x_ij) dx_ij / sum_ij exp(x_ij), and its denominator is known only
    after the last tile. Invariant after each tile: ``running_max`` is the maximum of x so far, and the accumulated
    gradient is sum_ij exp(x_ij - running_max) dx_ij over the tiles so far. A new maximum rescales it, as it rescales
    the normalizer of an online softmax.

    Source: Milakov and Gimelshein 2018.

    Args:
        tile_pass: The tiles.
        exponent: The exponent x, without clip and power.

    Attributes:
        sums: The row sums of exp(x).
    """

    def __init__(self, tile_pass: TilePass, exponent: Exponent) -> None:
        self.sums = RowSums(exponent, tile_pass.joint)
        self._gradient = TileGradient(tile_pass, exponent.offset)
        self._running_max = tile_pass.joint.new_tensor(-torch.inf)

    def append(self, tile: Tile) -> None:
        """Add a tile."""
        softmax = self.sums.append_rows(tile)
        new_max = torch.maximum(self._running_max, softmax.maximum.amax())
        self._gradient.scale_(shifted_exp(self._running_max, new_max))
        self._running_max = new_max
        # exp(x - new_max) is a row's softmax times the row's sum in units of exp(new_max).
        row_totals = softmax.total * shifted_exp(softmax.maximum, new_max)
        weights = softmax.weights.mul_(row_totals.unsqueeze(1))
        tile.backward(weights, self._gradient.inputs)
        if self._gradient.offset is not None:
            self._gradient.offset -= weights.sum(dim=0)

    def finish(self) -> list[Tensor | None]:
        """The gradient, after the last tile."""
        self._gradient.scale_(1 / self.sums.common_scale()[1])
        return self._gradient.parts


@final
class RowMeanGradient(AbstractTileReduction):
    """Row sums of exp(T), and the gradient of the mean over rows of log(row sum + exp(joint)), in one pass.

    The gradient of log(s + exp(joint)) is the row's softmax over marginal and joint pairs: a share of
    s / (s + exp(joint)) belongs to the marginal pairs, the rest to the joint pair.

    Args:
        tile_pass: The tiles.
        with_joint: If False, the mean over rows of log(row sum): the whole share belongs to the marginal pairs.

    Attributes:
        sums: The row sums s of exp(T).
    """

    def __init__(self, tile_pass: TilePass, with_joint: bool) -> None:
        self.sums = RowSums(Exponent(), tile_pass.joint)
        self._gradient = TileGradient(tile_pass)
        self._joint = tile_pass.joint if with_joint else torch.full_like(tile_pass.joint, -torch.inf)

    def append(self, tile: Tile) -> None:
        """Add a tile."""
        softmax = self.sums.append_rows(tile)
        marginal_share = (softmax.maximum - self._joint[tile.rows] + softmax.total.log()).sigmoid()
        weights = softmax.weights.mul_((marginal_share / len(self._joint)).unsqueeze(1))
        tile.backward(weights, self._gradient.inputs)

    def finish(self) -> list[Tensor | None]:
        """The gradient of the tiles' inputs and of the scores of the joint pairs, after the last tile."""
        joint_share = (self._joint - self.sums.maximum - self.sums.total.log()).sigmoid()
        return [*self._gradient.parts, joint_share / len(self._joint)]


class AbstractWeights(ABC):
    """dL/dS of a tile, for one sum over the tiles."""

    @abstractmethod
    def __call__(self, tile: Tile, grad_output: Tensor, grad_offset: Tensor | None, out: Tensor | None) -> Tensor:
        """(R, M) the weights, written to ``out`` or a new tensor.

        Args:
            tile: The tile.
            grad_output: The gradient of the sum.
            grad_offset: (M,) accumulates the gradient of the sum's offset, if it needs one.
            out: (R, M), or None.
        """


@final
class LogMeanExpWeights(AbstractWeights):
    """Gradient weights of a log-mean-exp: the softmax over all marginal pairs.

    Args:
        exponent: The exponent x.
        sums: The row sums of exp(x).
    """

    def __init__(self, exponent: Exponent, sums: RowSums) -> None:
        self._exponent = exponent
        self._maximum, self._total = sums.common_scale()

    def __call__(self, tile: Tile, grad_output: Tensor, grad_offset: Tensor | None, out: Tensor | None) -> Tensor:
        """The weights, (R, M)."""
        weights = shifted_exp(tile.exponent(self._exponent), self._maximum, out=out)
        weights *= grad_output * self._exponent.power / self._total
        if grad_offset is not None:
            grad_offset -= weights.sum(dim=0)
        clip = self._exponent.clip
        if clip is not None:  # after the offset's gradient: the offset is subtracted from the clipped scores
            weights.masked_fill_(tile.scores > clip, 0.0).masked_fill_(tile.scores < -clip, 0.0)
        return weights


@final
@dataclass(frozen=True)
class RowWeights(AbstractWeights):
    """Gradient weights of the logarithms of row sums: the softmax of each row.

    Attributes:
        sums: The row sums of exp(T).
    """

    sums: RowSums

    def __call__(self, tile: Tile, grad_output: Tensor, grad_offset: Tensor | None, out: Tensor | None) -> Tensor:
        """The weights, (R, M); ``grad_output`` is (N,)."""
        rows = tile.rows
        factors = grad_output[rows] / self.sums.total[rows]
        weights = shifted_exp(tile.scores, self.sums.maximum[rows].unsqueeze(1), out=out)
        return weights.mul_(factors.unsqueeze(1))


@final
class RowTotalWeights(AbstractWeights):
    """Gradient weights of the rows' sums of T: one for each marginal pair."""

    def __call__(self, tile: Tile, grad_output: Tensor, grad_offset: Tensor | None, out: Tensor | None) -> Tensor:
        """The weights, (R, M); ``grad_output`` is (N,)."""
        weights = torch.empty_like(tile.scores) if out is None else out
        return weights.copy_(grad_output[tile.rows].unsqueeze(1)).scatter_(1, tile.non_marginal, 0.0)


@final
@dataclass(frozen=True)
class FunctionWeights(AbstractWeights):
    """Gradient weights of the sum of a function of the scores: its derivative.

    Attributes:
        function: The function.
    """

    function: AbstractPairFunction

    def __call__(self, tile: Tile, grad_output: Tensor, grad_offset: Tensor | None, out: Tensor | None) -> Tensor:
        """The weights, (R, M)."""
        return self.function.derivative(tile.scores, out).mul_(grad_output)


@final
class WeightedGradient(AbstractTileReduction):
    """Gradient of several sums together, in one pass.

    Args:
        tile_pass: The tiles.
        sums: The gradient weights of each sum, and the gradient of its value.
        offset: (M,) the offset of the sum's exponent, for a single sum.
        inputs: Accumulators for the gradient of the inputs, to add to; zeros by default.
    """

    def __init__(
        self,
        tile_pass: TilePass,
        sums: Sequence[tuple[AbstractWeights, Tensor]],
        offset: Tensor | None = None,
        inputs: list[Tensor | None] | None = None,
    ) -> None:
        self._sums = sums
        self._gradient = TileGradient(tile_pass, offset, inputs)

    def append(self, tile: Tile) -> None:
        """Add a tile."""
        (first, grad_first), *others = self._sums
        total = first(tile, grad_first, self._gradient.offset, tile.scratch)
        for weights, grad_output in others:
            total += weights(tile, grad_output, self._gradient.offset, None)
        tile.backward(total, self._gradient.inputs)

    def finish(self) -> list[Tensor | None]:
        """The gradient, after the last tile."""
        return self._gradient.parts
