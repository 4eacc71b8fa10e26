"""Sweeps over the tiles of a matrix of scores, and what they gather: sums of each row, the gradient of the inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lightning_mi.scores.tiles import AbstractTiles, TileBackward
from lightning_mi.utilities.numerics import RowSoftmax, log_mean_exp, row_softmax, shifted_exp, softplus_sum

# From a tile of scores, its rows and an upstream gradient to the weights dL/dS, new ones. What is last collects the
# gradient of the offset, (M,), if there is one.
Weights = Callable[[Tensor, slice, Tensor, Tensor | None], Tensor]


@final
@dataclass(frozen=True)
class Exponent:
    """What is exponentiated: power * (clip(T) - offset).

    Attributes:
        offset: (M,) of each candidate.
        clip: Scores are clamped to [-clip, clip].
        power: A factor.
    """

    offset: Tensor | None = None
    clip: float | None = None
    power: float = 1.0

    @property
    def is_plain(self) -> bool:
        """Whether it is T itself."""
        return self.offset is None and self.clip is None and self.power == 1.0

    def of(self, scores: Tensor, non_marginal: Tensor) -> Tensor:
        """(R, M) of a tile whose non_marginal columns, (R, k), are minus infinity, and stay so; the scores stay too."""
        x = scores if self.clip is None else scores.clamp(-self.clip, self.clip)
        if self.offset is not None:
            x = x - self.offset
        if self.power != 1.0:
            x = x * self.power
        return x if x is scores else x.scatter_(1, non_marginal, -math.inf)

    def weights(self, sums: RowSums, non_marginal: Tensor) -> Weights:
        """Those of the log-mean-exp of which these are the sums."""
        highest, total = sums.common_scale()

        def weigh(scores: Tensor, rows: slice, grad_output: Tensor, of_offset: Tensor | None) -> Tensor:
            x = self.of(scores, non_marginal[rows])
            weights = shifted_exp(x, highest, out=None if x is scores else x).mul_(grad_output * self.power / total)
            if of_offset is not None:  # It is subtracted from what is clipped.
                of_offset -= weights.sum(dim=0)
            if self.clip is not None:
                weights.masked_fill_(scores > self.clip, 0.0).masked_fill_(scores < -self.clip, 0.0)
            return weights

        return weigh


@final
class RowSums:
    """Sums of exponentials over the rows of a matrix, each in units of its own row's highest one.

    Args:
        like: (N,) tells the number of rows, the type and the device.

    Attributes:
        largest: (N,) the highest exponent.
        total: (N,) the sum of exp(x - largest).
        squares: (N,) the sum of its squares.

    Example:
        >>> sums = RowSums(torch.zeros(2))
        >>> _ = sums.put(slice(0, 2), torch.zeros(2, 3), out=torch.empty(2, 3))
        >>> sums.log_mean_exp(count=6)
        tensor(0.)
    """

    largest: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, like: Tensor) -> None:
        self.largest, self.total, self.squares = like.new_zeros(3, len(like))

    def put(self, rows: slice, x: Tensor, out: Tensor) -> RowSoftmax:
        """Take in a tile, and give its softmax, written to ``out``."""
        softmax = row_softmax(x, out)
        self.largest[rows], self.total[rows] = softmax.largest, softmax.total
        self.squares[rows] = (softmax.total * torch.linalg.vector_norm(softmax.weights, dim=1)).square()
        return softmax

    def weights(self) -> Weights:
        """Those of the logarithms of the rows' sums, whose upstream gradient is (N,)."""

        def weigh(scores: Tensor, rows: slice, grad_output: Tensor, of_offset: Tensor | None) -> Tensor:
            factors = grad_output[rows] / self.total[rows]
            return shifted_exp(scores, self.largest[rows].unsqueeze(1)).mul_(factors.unsqueeze(1))

        return weigh

    def logarithms(self) -> Tensor:
        """(N,) log of each row's sum of exponentials."""
        return self.largest + self.total.log()

    def log_mean_exp(self, count: int, squared: bool = False) -> Tensor:
        """Log of the sum over all rows, of the exponentials or of their squares, over a count."""
        if squared:
            return log_mean_exp(2 * self.largest, count=count, log_weights=self.squares.log())
        return log_mean_exp(self.largest, count=count, log_weights=self.total.log())

    def common_scale(self) -> tuple[Tensor, Tensor]:
        """The highest exponent of all, and the sum of all exp(x - highest)."""
        highest = self.largest.amax()
        return highest, (self.total * shifted_exp(self.largest, highest)).sum()


@final
class Gradient:
    """The gradient of the inputs of tiles, and of an offset that is subtracted from their columns, as it sums up.

    Args:
        tiles: The tiles.
        offset: (M,), or None.

    Attributes:
        of_tiles: Of each input of the tiles; None where none is needed.
        of_offset: Of the offset, likewise.
    """

    def __init__(self, tiles: AbstractTiles, offset: Tensor | None = None) -> None:
        self.of_tiles = tiles.accumulators()
        self.of_offset = torch.zeros_like(offset) if offset is not None and offset.requires_grad else None
        self._has_offset = offset is not None

    @property
    def parts(self) -> Sequence[Tensor | None]:
        """One for each input, and one for the offset if there is one."""
        return [*self.of_tiles, self.of_offset] if self._has_offset else self.of_tiles

    def rescale(self, factor: Tensor) -> None:
        """Multiply what there is so far with a scalar."""
        if factor.device.type == "cpu" and factor == 1:  # Nearly always, and an accelerator need not wait to see it.
            return
        for part in self.parts:
            if part is not None:
                part *= factor


@final
@dataclass(frozen=True)
class TilePass:
    """Tiles of whole rows, one after another, and what one pass over them gives; nothing here is seen by autograd.

    It holds none of what it gives, so that autograd can hold it without a circle.

    Attributes:
        tiles: Make the scores.
        non_marginal: (N, k) the columns of each row that hold no marginal pair.
        joint: (N,) the scores of the joint pairs, without gradient.
        tile_rows: How many rows a tile has.
    """

    tiles: AbstractTiles
    non_marginal: Tensor
    joint: Tensor
    tile_rows: int

    def __call__(self, differentiate: bool = False) -> Iterator[tuple[slice, Tensor, TileBackward]]:
        """Each tile's rows, its scores, -inf where there is no marginal pair, and what pulls a gradient back."""
        num_rows = self.tiles.shape[0]
        for start in range(0, num_rows, self.tile_rows):
            rows = slice(start, min(start + self.tile_rows, num_rows))
            scores, backward = self.tiles.tile(rows, differentiate)
            yield rows, scores.scatter_(1, self.non_marginal[rows], -math.inf), backward
            del scores, backward  # As whoever is given them does, so that the next tile takes their place.

    @torch.no_grad()
    def read(self, *exponents: Exponent) -> list[RowSums]:
        """The sums of exponentials, of each exponent."""
        sums, out = [RowSums(self.joint) for _ in exponents], self._buffer()
        for rows, scores, _ in self():
            for exponent, of_exponent in zip(exponents, sums, strict=True):
                of_exponent.put(rows, exponent.of(scores, self.non_marginal[rows]), out[: len(scores)])
            del scores, _
        return sums

    @torch.no_grad()
    def read_softplus(self) -> tuple[Tensor, RowSums]:
        """The sum of log(1 + exp(T)), and those of exp(T)."""
        sums, out, total = RowSums(self.joint), self._buffer(), self.joint.new_zeros(())
        for rows, scores, _ in self():
            sums.put(rows, scores, out[: len(scores)])
            total += softplus_sum(scores)
            del scores, _
        return total, sums

    @torch.no_grad()
    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest score."""
        low, high = self.joint.new_tensor(math.inf), self.joint.new_tensor(-math.inf)
        for rows, scores, _ in self():
            high = torch.maximum(high, scores.amax())
            low = torch.minimum(low, scores.scatter_(1, self.non_marginal[rows], math.inf).amin())
        return low, high

    @torch.no_grad()
    def exp_with_gradient(self, exponent: Exponent) -> tuple[RowSums, Gradient]:
        """The sums of exponentials, and the gradient of their log-mean-exp.

        Its weights are the exponentials over the sum of all, which is known at the end: until then, in units of the
        highest one so far.
        """
        sums, out, gradient = RowSums(self.joint), self._buffer(), Gradient(self.tiles, exponent.offset)
        highest = self.joint.new_tensor(-math.inf)
        for rows, scores, backward in self(differentiate=True):
            softmax = sums.put(rows, exponent.of(scores, self.non_marginal[rows]), out[: len(scores)])
            so_far, highest = highest, torch.maximum(highest, softmax.largest.amax())
            gradient.rescale(shifted_exp(so_far, highest))
            factors = softmax.total * shifted_exp(softmax.largest, highest)
            backward(softmax.weights.mul_(factors.unsqueeze(1)), gradient.of_tiles)
            if gradient.of_offset is not None:
                gradient.of_offset -= softmax.weights.sum(dim=0)
            del scores, backward
        gradient.rescale(1 / sums.common_scale()[1])
        return sums, gradient

    @torch.no_grad()
    def rows_with_gradient(self) -> tuple[RowSums, Sequence[Tensor | None]]:
        """The sums of exponentials; of the rows' mean of log(sum + exp(joint)) the gradient of inputs and joint."""
        sums, out, gradient = RowSums(self.joint), self._buffer(), Gradient(self.tiles)
        for rows, scores, backward in self(differentiate=True):
            softmax = sums.put(rows, scores, out[: len(scores)])
            shares = (softmax.largest - self.joint[rows] + softmax.total.log()).sigmoid() / len(self.joint)
            backward(softmax.weights.mul_(shares.unsqueeze(1)), gradient.of_tiles)
            del scores, backward
        of_joint = (self.joint - sums.largest - sums.total.log()).sigmoid() / len(self.joint)
        return sums, [*gradient.parts, of_joint]

    @torch.no_grad()
    def gradient(self, grad_output: Sequence[tuple[Weights, Tensor]], offset: Tensor | None = None) -> Gradient:
        """That of several sums together, each given by its weights and its upstream gradient."""
        gradient = Gradient(self.tiles, offset)
        for rows, scores, backward in self(differentiate=True):
            (first, of_first), *others = grad_output
            weights = first(scores, rows, of_first, gradient.of_offset)
            for weigh, of_sum in others:
                weights += weigh(scores, rows, of_sum, gradient.of_offset)
            backward(weights, gradient.of_tiles)
            del scores, backward, weights
        return gradient

    def _buffer(self) -> Tensor:
        return self.joint.new_empty(self.tile_rows, self.tiles.shape[1])
