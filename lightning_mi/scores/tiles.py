"""Tiles: scores of all pairs computed a few rows at a time, each tile with its own backward."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from lightning_mi.scores.custom_gradient import needs_plain_autograd
from lightning_mi.utilities.numerics import full_precision, upcast

_TILE_BYTES_CPU = 4 * 2**20  # fits the last-level cache of a CPU
_TILE_BYTES_ACCELERATOR = 2**28  # large enough to occupy an accelerator
_SLACK = 0.1  # a tile may exceed its size by a tenth, instead of a further small tile

# Adds the gradient with respect to each input, given dL/dS of a tile, to accumulators; None where none is needed.
TileBackward = Callable[[Tensor, list[Tensor | None]], None]


class AbstractTiles(ABC):
    """An (N, M) matrix of scores that is computed a few rows at a time.

    Attributes:
        inputs: The tensors that the scores depend on, as far as they may need a gradient.
        shape: (N, M).
        row_bytes: Peak memory of one row while its scores are computed and differentiated.
        fewest_tiles: With this many tiles or fewer, the dense form is as fast.
        column_inputs: The indices of the inputs that have one row for each column of scores, which pass from rank to
            rank with ``gather="ring"``; empty, the default, if the tiles cannot be computed for other columns.
    """

    fewest_tiles: int = 1
    column_inputs: tuple[int, ...] = ()

    inputs: tuple[Tensor, ...]
    shape: tuple[int, int]
    row_bytes: int

    @abstractmethod
    def matrix(self) -> Tensor:
        """(N, M) all scores at once, by ordinary autograd."""

    @abstractmethod
    def at(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """(K,) the scores of K entries, float32 or wider, by ordinary autograd.

        Args:
            rows: (K,) integers, or a slice.
            columns: (K,) integers, or a slice.
        """

    @abstractmethod
    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, TileBackward]:
        """Scores of some rows, float32 or wider, without autograd; the caller may overwrite them.

        Args:
            rows: The rows.
            differentiate: Whether the caller will call the backward: once, before the next tile.
        """

    def detach(self) -> AbstractTiles:
        """The same scores without their autograd graph."""
        return self.with_inputs([tensor.detach() for tensor in self.inputs])

    def with_inputs(self, inputs: Sequence[Tensor]) -> AbstractTiles:
        """The same function of other inputs; those of the columns may differ in length.

        Args:
            inputs: As many tensors as :attr:`inputs`.
        """
        # Not the constructor, which may cast under another autocast state.
        other = copy.copy(self)
        other.inputs = tuple(inputs)
        if self.column_inputs:
            other.shape = (self.shape[0], len(inputs[self.column_inputs[0]]))
        return other

    def affine(self, scale: Tensor | None, offset: Tensor | None) -> AbstractTiles:
        """The same scores, times a scale, plus an offset; scalars or None."""
        return AffineTiles(self, scale, offset)

    def transpose(self) -> AbstractTiles | None:
        """The (M, N) tiles of the transposed matrix; None, the default, without such a form."""
        return None

    def accumulators(self) -> list[Tensor | None]:
        """Zeros for the gradient of each input, float32 or wider; None for an input that needs none."""
        return [
            torch.zeros_like(upcast(tensor.detach()), memory_format=torch.contiguous_format)
            if tensor.requires_grad
            else None
            for tensor in self.inputs
        ]


@final
class ProductTiles(AbstractTiles):
    """Scores that are inner products, g(x) . h(y): three matrix products a tile, gradient included.

    Args:
        g: (N, D).
        h: (M, D).

    Example:
        >>> ProductTiles(torch.ones(3, 2), torch.ones(4, 2)).tile(slice(2, 3), differentiate=False)[0]
        tensor([[2., 2., 2., 2.]])
    """

    column_inputs = (1,)

    def __init__(self, g: Tensor, h: Tensor) -> None:
        device_type = g.device.type
        if torch.is_autocast_enabled(device_type):  # cast as g @ h.T would; tiles are computed outside of autocast
            dtype = torch.get_autocast_dtype(device_type)
            g, h = (factor.to(dtype) if factor.dtype != torch.float64 else factor for factor in (g, h))
        self.inputs = (g, h)
        self.shape = (len(g), len(h))
        self.row_bytes = len(h) * max(g.element_size(), 4)

    def matrix(self) -> Tensor:
        """(N, M) all products."""
        g, h = self.inputs
        return g @ h.T

    def at(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """(K,) products of some rows of g and h."""
        g, h = self.inputs
        return (upcast(g[rows]) * upcast(h[columns])).sum(-1)

    @torch.no_grad()
    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, TileBackward]:
        """Products of some rows of g with all rows of h."""
        g, h = self.inputs[0][rows], self.inputs[1]
        with full_precision(g.device.type):
            scores = upcast(g @ h.T)

        def backward(weights: Tensor, into: list[Tensor | None]) -> None:
            grad_g, grad_h = into
            weights = weights.to(g.dtype)
            with full_precision(g.device.type):
                if grad_g is not None:
                    grad_g[rows] += weights @ h
                if grad_h is not None and grad_h.dtype == g.dtype:
                    grad_h.addmm_(weights.T, g)  # in place: no temporary of the size of h
                elif grad_h is not None:
                    grad_h += weights.T @ g

        return scores, backward

    def transpose(self) -> ProductTiles:
        """(M, N) the products of h with g."""
        transposed = copy.copy(self)
        g, h = self.inputs
        transposed.inputs, transposed.shape = (h, g), (len(h), len(g))
        transposed.row_bytes = len(g) * max(h.element_size(), 4)
        return transposed

    def affine(self, scale: Tensor | None, offset: Tensor | None) -> AbstractTiles:
        """The same scores, times a scale, plus an offset. Scaling g, (N, D), costs less than scaling (N, M) scores."""
        g, h = self.inputs
        scaled = self if scale is None else ProductTiles(g * scale, h)
        return scaled if offset is None else AffineTiles(scaled, None, offset)


@final
class AffineTiles(AbstractTiles):
    """The scores of other tiles, times a scale, plus an offset.

    Args:
        tiles: The other tiles.
        scale: A scalar, or None.
        offset: A scalar, (M,) one number for each column, or None.

    Example:
        >>> tiles = AffineTiles(ProductTiles(torch.ones(1, 2), torch.ones(2, 2)), torch.tensor(3.0), torch.tensor(0.5))
        >>> tiles.matrix()
        tensor([[6.5000, 6.5000]])
    """

    def __init__(self, tiles: AbstractTiles, scale: Tensor | None, offset: Tensor | None) -> None:
        self._tiles, self._scale, self._offset = tiles, scale, offset
        self.inputs = (*tiles.inputs, *(constant for constant in (scale, offset) if constant is not None))
        self.shape, self.row_bytes, self.fewest_tiles = tiles.shape, tiles.row_bytes, tiles.fewest_tiles
        self.column_inputs = tiles.column_inputs
        if self.column_inputs and offset is not None and offset.ndim:
            self.column_inputs = (*tiles.column_inputs, len(self.inputs) - 1)

    def matrix(self) -> Tensor:
        """(N, M) all scores."""
        return with_affine(self._tiles.matrix(), self._scale, self._offset)

    def at(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """(K,) scores of some entries."""
        offset = self._offset[columns] if self._offset is not None and self._offset.ndim else self._offset
        return with_affine(self._tiles.at(rows, columns), self._scale, offset)

    @torch.no_grad()
    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, TileBackward]:
        """Scores of some rows."""
        scale, offset, num_inputs = self._scale, self._offset, len(self._tiles.inputs)
        raw, inner_backward = self._tiles.tile(rows, differentiate)
        # raw is overwritten only if no scale needs it in backward.
        scores = raw if scale is None else raw * scale
        if offset is not None:
            scores += offset

        def backward(weights: Tensor, into: list[Tensor | None]) -> None:
            constants = into[num_inputs:]
            if scale is not None and (grad_scale := constants.pop(0)) is not None:
                grad_scale += (weights * raw).sum()
            if offset is not None and (grad_offset := constants.pop(0)) is not None:
                grad_offset += weights.sum_to_size(offset.shape)
            inner_backward(weights if scale is None else weights * scale.detach(), into[:num_inputs])

        return scores, backward

    def with_inputs(self, inputs: Sequence[Tensor]) -> AffineTiles:
        """The same function of other inputs."""
        num_inputs = len(self._tiles.inputs)
        constants = list(inputs[num_inputs:])
        scale, offset = (None if old is None else constants.pop(0) for old in (self._scale, self._offset))
        return AffineTiles(self._tiles.with_inputs(inputs[:num_inputs]), scale, offset)

    def transpose(self) -> AffineTiles | None:
        """(M, N) the same scores transposed, if the other tiles have a transpose."""
        tiles = self._tiles.transpose()
        by_column = self._offset is not None and self._offset.ndim > 0
        return None if tiles is None or by_column else AffineTiles(tiles, self._scale, self._offset)


def tile_rows(tiles: AbstractTiles, tile_bytes: float | None) -> int | None:
    """Number of rows of a tile, at least one; None if all scores are computed at once.

    All scores are computed at once if they fit in a tile, if by default tiles are not faster, or if a custom backward
    is unsupported (:func:`needs_plain_autograd`). Otherwise all tiles have about the same number of rows, and a tile
    holds at most a tenth more than ``tile_bytes``.

    Args:
        tiles: The tiles.
        tile_bytes: Memory of one tile; a default for the device if None.

    Raises:
        ValueError: ``tile_bytes`` is not positive.

    Example:
        >>> tile_rows(ProductTiles(torch.ones(4, 2), torch.ones(4, 2)), tile_bytes=32)
        2
    """
    check_tile_bytes(tile_bytes)
    fewest = 1
    if tile_bytes is None:
        tile_bytes = default_tile_bytes(tiles)
        fewest = tiles.fewest_tiles
    num_rows, num_tiles = tiles.shape[0], tiles.shape[0] * tiles.row_bytes / tile_bytes
    # Integer scores are rejected in their dense form.
    if num_tiles <= fewest or needs_plain_autograd() or not tiles.inputs[0].is_floating_point():
        return None
    return max(math.ceil(num_rows / math.ceil(num_tiles - _SLACK)), 1)


def default_tile_bytes(tiles: AbstractTiles) -> int:
    """The memory of a tile that is fast on the device of the tiles.

    Example:
        >>> default_tile_bytes(ProductTiles(torch.ones(4, 2), torch.ones(4, 2)))
        4194304
    """
    return _TILE_BYTES_CPU if tiles.inputs[0].device.type == "cpu" else _TILE_BYTES_ACCELERATOR


def check_tile_bytes(tile_bytes: float | None) -> None:
    """Raise a ValueError unless ``tile_bytes`` is a positive number or None."""
    if tile_bytes is not None and not tile_bytes > 0:
        raise ValueError(
            f"Got tile_bytes={tile_bytes}: it is the positive number of bytes of a tile of scores. None gives a "
            "default for the device, math.inf keeps all scores."
        )


def with_affine(scores: Tensor, scale: Tensor | None, offset: Tensor | None) -> Tensor:
    """Scores times a scale plus an offset, each if it is not None."""
    if scale is not None:
        scores = scores * scale
    return scores if offset is None else scores + offset
