"""One pass over the tiles of a score matrix, and reductions computed in it."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.scores.dense import Exponent
from lightning_mi.scores.pair_functions import AbstractPairFunction
from lightning_mi.scores.tiles import AbstractTiles, TileBackward
from lightning_mi.utilities.numerics import RowSoftmax, log_mean_exp, row_softmax, shifted_exp


class Tile(NamedTuple):
    """Some rows of the score matrix.

    Attributes:
        rows: The R rows.
        scores: (R, M); -inf where there is no marginal pair. Reductions do not overwrite them.
        non_marginal: (R, k) the columns of each row that are not marginal pairs.
        scratch: (R, M) memory that each reduction may overwrite.
        backward: Adds the gradient of the inputs to accumulators; at most one reduction calls it.
    """

    rows: slice
    scores: Tensor
    non_marginal: Tensor
    scratch: Tensor
    backward: TileBackward

    def exponent(self, exponent: Exponent) -> Tensor:
        """(R, M) the exponent of the scores; -inf where there is no marginal pair."""
        x = exponent.apply(self.scores)
        return x if x is self.scores else x.scatter_(1, self.non_marginal, -math.inf)


class AbstractTileReduction(ABC):
    """A reduction over all tiles. It stores no tile after :meth:`append`."""

    @abstractmethod
    def append(self, tile: Tile) -> None:
        """Add a tile, without autograd."""


@final
@dataclass(frozen=True)
class TilePass:
    """The tiles of a score matrix, computed one after another.

    It stores no result, so that autograd can reference it without a reference cycle.

    Attributes:
        tiles: Compute the scores.
        non_marginal: (N, k) the columns of each row that are not marginal pairs.
        joint: (N,) the scores of the joint pairs, without gradient.
        tile_rows: The number of rows of a tile.
    """

    tiles: AbstractTiles
    non_marginal: Tensor
    joint: Tensor
    tile_rows: int

    @property
    def local(self) -> TilePass:
        """The pass over the scores that this rank can compute without the other ranks: all of them."""
        return self

    def detach(self) -> TilePass:
        """The same scores without their autograd graph."""
        return dataclasses.replace(self, tiles=self.tiles.detach())

    def scaled(self, factor: float, joint: Tensor) -> TilePass:
        """The scores times a factor; ``joint`` holds the scaled scores of the joint pairs, (N,)."""
        tiles = self.tiles.affine(joint.new_tensor(factor), None)
        return dataclasses.replace(self, tiles=tiles, joint=joint)

    @torch.no_grad()
    def run(self, *reductions: AbstractTileReduction, differentiate: bool = False) -> None:
        """Compute each tile once and append it to all reductions.

        Args:
            reductions: At least one.
            differentiate: Whether a reduction calls the tiles' backward.
        """
        num_rows, num_columns = self.tiles.shape
        scratch = self.joint.new_empty(self.tile_rows, num_columns)
        for start in range(0, num_rows, self.tile_rows):
            rows = slice(start, min(start + self.tile_rows, num_rows))
            self._append_tile(rows, scratch, reductions, differentiate)

    def _append_tile(
        self, rows: slice, scratch: Tensor, reductions: tuple[AbstractTileReduction, ...], differentiate: bool
    ) -> None:
        # A separate function: the tile is freed when it returns, before the next tile is computed.
        scores, backward = self.tiles.tile(rows, differentiate)
        non_marginal = self.non_marginal[rows]
        scores.scatter_(1, non_marginal, -math.inf)
        tile = Tile(rows, scores, non_marginal, scratch[: len(scores)], backward)
        for reduction in reductions:
            reduction.append(tile)


@final
class RowSums(AbstractTileReduction):
    """Sums of exponentials over the rows of a score matrix, each in units of exp(maximum of its row).

    Several tiles may hold different columns of a row. Invariant after each tile: ``maximum`` is the maximum of the
    row's columns so far, and the sums are in its units. A new maximum rescales them.

    Source: Milakov and Gimelshein 2018.

    Args:
        exponent: The exponent x.
        joint: (N,) for the number of rows, the dtype and the device.

    Attributes:
        maximum: (N,) the maximum of x.
        total: (N,) the sum of exp(x - maximum).
        squares: (N,) the sum of exp(x - maximum)^2.
    """

    maximum: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, exponent: Exponent, joint: Tensor) -> None:
        self._exponent = exponent
        self.maximum, self.total, self.squares = joint.new_zeros(3, len(joint))
        self.maximum.fill_(-math.inf)

    def append(self, tile: Tile) -> None:
        """Add a tile."""
        self.append_rows(tile)

    def append_rows(self, tile: Tile) -> RowSoftmax:
        """Add a tile; returns the softmax of its rows, in the tile's scratch memory."""
        softmax, rows = row_softmax(tile.exponent(self._exponent), tile.scratch), tile.rows
        squares = (softmax.total * torch.linalg.vector_norm(softmax.weights, dim=1)).square()
        maximum = torch.maximum(self.maximum[rows], softmax.maximum)
        old, new = shifted_exp(self.maximum[rows], maximum), shifted_exp(softmax.maximum, maximum)
        total = (self.total[rows] * old + softmax.total * new).masked_fill(maximum == math.inf, 1.0)
        self.squares[rows] = self.squares[rows] * old.square() + squares * new.square()
        self.maximum[rows], self.total[rows] = maximum, total
        return softmax

    def log_sums(self) -> Tensor:
        """(N,) log of each row's sum of exponentials."""
        return self.maximum + self.total.log()

    def log_mean_exp(self, count: int) -> Tensor:
        """Log of the sum of exp(x) over all rows divided by ``count``; -inf without rows."""
        if not len(self.maximum):  # a rank without rows still passes candidates on
            return self.maximum.new_tensor(-math.inf)
        return log_mean_exp(self.maximum, count=count, log_weights=self.total.log())

    def log_mean_exp_double(self, count: int) -> Tensor:
        """Log of the sum of exp(2 x) over all rows divided by ``count``; -inf without rows."""
        if not len(self.maximum):
            return self.maximum.new_tensor(-math.inf)
        return log_mean_exp(2 * self.maximum, count=count, log_weights=self.squares.log())

    def common_scale(self) -> tuple[Tensor, Tensor]:
        """The maximum over all rows, and the sum of exp(x - maximum) over all rows; -inf and 0 without rows."""
        if not len(self.maximum):
            return self.maximum.new_tensor(-math.inf), self.total.sum()
        maximum = self.maximum.amax()
        return maximum, (self.total * shifted_exp(self.maximum, maximum)).sum()


@final
class RowTotals(AbstractTileReduction):
    """Sum of T over the marginal pairs of each row.

    Args:
        joint: (N,) for the number of rows, the dtype and the device.

    Attributes:
        totals: (N,) the sums.
    """

    def __init__(self, joint: Tensor) -> None:
        self.totals = torch.zeros_like(joint)

    def append(self, tile: Tile) -> None:
        """Add a tile."""
        self.totals[tile.rows] += tile.scratch.copy_(tile.scores).scatter_(1, tile.non_marginal, 0.0).sum(dim=1)


@final
class FunctionSum(AbstractTileReduction):
    """Sum of a function of the scores over the marginal pairs.

    Args:
        function: The function.
        joint: For the dtype and the device.

    Attributes:
        total: The sum, a scalar.
    """

    def __init__(self, function: AbstractPairFunction, joint: Tensor) -> None:
        self._function = function
        self.total = joint.new_zeros(())

    def append(self, tile: Tile) -> None:
        """Add a tile."""
        self.total += self._function.value_into(tile.scores, tile.scratch).sum()


@final
class Extremes(AbstractTileReduction):
    """The lowest and the highest score of the marginal pairs.

    Args:
        joint: For the dtype and the device.

    Attributes:
        low: The lowest score, a scalar.
        high: The highest score, a scalar.
    """

    def __init__(self, joint: Tensor) -> None:
        self.low, self.high = joint.new_tensor(math.inf), joint.new_tensor(-math.inf)

    def append(self, tile: Tile) -> None:
        """Add a tile."""
        self.high = torch.maximum(self.high, tile.scores.amax())
        above = tile.scratch.copy_(tile.scores).scatter_(1, tile.non_marginal, math.inf)
        self.low = torch.minimum(self.low, above.amin())
