"""Tiles of two score matrices, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from lightning_mi.scores.tiles import AbstractTiles, TileBackward


@final
class StackedTiles(AbstractTiles):
    """The rows of one score matrix, then the rows of another with the same number of columns.

    Args:
        first: (N, M) scores.
        second: (K, M) scores.
        transposed: ``second`` is the transpose of ``first``, so that :meth:`matrix` computes the scores once.

    Example:
        >>> from lightning_mi.scores.tiles import ProductTiles
        >>> first = ProductTiles(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
        >>> StackedTiles(first, first.transpose()).matrix()
        tensor([[1., 3.],
                [2., 6.],
                [1., 2.],
                [3., 6.]])
    """

    def __init__(self, first: AbstractTiles, second: AbstractTiles, transposed: bool = False) -> None:
        self._first, self._second, self._transposed = first, second, transposed
        self.inputs = (*first.inputs, *second.inputs)
        self.shape = (first.shape[0] + second.shape[0], first.shape[1])
        self.row_bytes = max(first.row_bytes, second.row_bytes)
        self.fewest_tiles = max(first.fewest_tiles, second.fewest_tiles)

    def matrix(self) -> Tensor:
        """(N + K, M) all scores."""
        first = self._first.matrix()
        return torch.cat([first, first.T if self._transposed else self._second.matrix()])

    def at(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """(K,) scores of some entries."""
        height, device = self._first.shape[0], self.inputs[0].device
        if isinstance(rows, slice):
            rows = torch.arange(self.shape[0], device=device)[rows]
        if isinstance(columns, slice):
            columns = torch.arange(self.shape[1], device=device)[columns]
        in_first, in_second = (rows < height).nonzero().squeeze(1), (rows >= height).nonzero().squeeze(1)
        scores = torch.cat(
            [
                self._first.at(rows[in_first], columns[in_first]),
                self._second.at(rows[in_second] - height, columns[in_second]),
            ]
        )
        return torch.empty_like(scores).index_copy(0, torch.cat([in_first, in_second]), scores)

    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, TileBackward]:
        """Scores of some rows; a tile may hold rows of both matrices."""
        height, num_inputs = self._first.shape[0], len(self._first.inputs)
        split = min(max(height - rows.start, 0), rows.stop - rows.start)  # rows of the first matrix in the tile

        def backward_first(weights: Tensor, into: list[Tensor | None]) -> None:
            first_backward(weights, into[:num_inputs])

        def backward_second(weights: Tensor, into: list[Tensor | None]) -> None:
            second_backward(weights, into[num_inputs:])

        def backward(weights: Tensor, into: list[Tensor | None]) -> None:
            backward_first(weights[:split], into)
            backward_second(weights[split:], into)

        if split > 0:
            first, first_backward = self._first.tile(slice(rows.start, rows.start + split), differentiate)
            if rows.stop <= height:
                return first, backward_first
        second, second_backward = self._second.tile(
            slice(rows.start + split - height, rows.stop - height), differentiate
        )
        return (second, backward_second) if split == 0 else (torch.cat([first, second]), backward)

    def with_inputs(self, inputs: Sequence[Tensor]) -> StackedTiles:
        """The same function of other inputs."""
        num_inputs = len(self._first.inputs)
        first, second = self._first.with_inputs(inputs[:num_inputs]), self._second.with_inputs(inputs[num_inputs:])
        return StackedTiles(first, second, self._transposed)
