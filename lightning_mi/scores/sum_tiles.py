"""Tiles of the sum of two critics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from lightning_mi.scores.tiles import AbstractTiles, TileBackward


@final
class SumTiles(AbstractTiles):
    """The sum of the scores of two tiles.

    Args:
        first: (N, M) scores.
        second: (N, M) scores of the same pairs.

    Example:
        >>> from lightning_mi.scores.tiles import ProductTiles
        >>> ones = ProductTiles(torch.ones(1, 2), torch.ones(2, 2))
        >>> SumTiles(ones, ones).matrix()
        tensor([[4., 4.]])
    """

    def __init__(self, first: AbstractTiles, second: AbstractTiles) -> None:
        self._first, self._second = first, second
        self.inputs = (*first.inputs, *second.inputs)
        self.shape = first.shape
        self.row_bytes = first.row_bytes + second.row_bytes
        self.fewest_tiles = max(first.fewest_tiles, second.fewest_tiles)
        if first.column_inputs and second.column_inputs:
            shift = len(first.inputs)
            self.column_inputs = (*first.column_inputs, *(shift + index for index in second.column_inputs))

    def matrix(self) -> Tensor:
        """(N, M) all scores."""
        return self._first.matrix() + self._second.matrix()

    def at(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """(K,) scores of some entries."""
        return self._first.at(rows, columns) + self._second.at(rows, columns)

    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, TileBackward]:
        """Scores of some rows."""
        (first, first_backward), (second, second_backward) = (
            tiles.tile(rows, differentiate) for tiles in (self._first, self._second)
        )
        num_inputs = len(self._first.inputs)

        def backward(weights: Tensor, into: list[Tensor | None]) -> None:
            first_backward(weights, into[:num_inputs])
            second_backward(weights, into[num_inputs:])

        with torch.no_grad():
            return first + second, backward

    def with_inputs(self, inputs: Sequence[Tensor]) -> SumTiles:
        """The same function of other inputs."""
        num_inputs = len(self._first.inputs)
        return SumTiles(self._first.with_inputs(inputs[:num_inputs]), self._second.with_inputs(inputs[num_inputs:]))

    def transpose(self) -> SumTiles | None:
        """(M, N) the same scores transposed, if both tiles have a transpose."""
        first, second = self._first.transpose(), self._second.transpose()
        return None if first is None or second is None else SumTiles(first, second)
