"""Tiles: scores of every x with every y, as a critic can make them a few rows at a time, and pull gradients back."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from lightning_mi.scores.custom_gradient import needs_plain_autograd
from lightning_mi.utilities.numerics import full_precision, upcast

_TILE_BYTES = 4 * 2**20  # stays in a processor's last cache
_SLACK = 0.1  # of a tile, which all of them share rather than that there is one more
_TILE_BYTES_ELSEWHERE = 2**28  # An accelerator has memory, and wants work.

Index = Tensor | slice
# Adds the gradient that weights dL/dS of a tile give to the accumulators of the inputs; None where none is needed.
TileBackward = Callable[[Tensor, list[Tensor | None]], None]


class AbstractTiles(ABC):
    """An (N, M) matrix of scores that need not be there at once.

    Attributes:
        inputs: The tensors that the scores are a function of; a gradient with respect to them is all of it.
        shape: (N, M).
        row_bytes: The memory that one row takes while its scores are made and differentiated.
        fewest_tiles: With fewer, all scores at once are as fast.
    """

    fewest_tiles: int = 1

    inputs: tuple[Tensor, ...]
    shape: tuple[int, int]
    row_bytes: int

    @abstractmethod
    def matrix(self) -> Tensor:
        """(N, M) all scores at once, by ordinary autograd."""

    @abstractmethod
    def at(self, rows: Index, columns: Index) -> Tensor:
        """(K,) the scores of K entries, float32 or wider, by ordinary autograd."""

    @abstractmethod
    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, TileBackward]:
        """The scores of some rows, float32 or wider and free to be overwritten until the next tile; no autograd.

        Args:
            rows: Which ones.
            differentiate: Whether what is returned beside the scores will be called: once, before the next tile.
        """

    @abstractmethod
    def detach(self) -> AbstractTiles:
        """The same scores without their autograd graph."""

    @abstractmethod
    def affine(self, scale: Tensor | None, offset: Tensor | None) -> AbstractTiles:
        """The same scores, times a scale, plus an offset; scalars."""

    def accumulators(self) -> list[Tensor | None]:
        """Zeros to sum the gradient of each input in, float32 or wider; None for an input that needs none."""
        return [
            torch.zeros_like(upcast(one.detach()), memory_format=torch.contiguous_format) if one.requires_grad else None
            for one in self.inputs
        ]


@final
class Products(AbstractTiles):
    """Scores that are inner products of factors, g(x) . h(y): three matrix products a tile, with the gradient.

    Args:
        g: (N, D).
        h: (M, D).
        offset: A scalar added to every score.

    Example:
        >>> Products(torch.ones(3, 2), torch.ones(4, 2)).tile(slice(2, 3), differentiate=False)[0]
        tensor([[2., 2., 2., 2.]])
    """

    def __init__(self, g: Tensor, h: Tensor, offset: Tensor | None = None) -> None:
        kind = g.device.type
        if torch.is_autocast_enabled(kind):  # As a matrix product would: the tiles are made outside of autocast.
            g, h = (t.to(torch.get_autocast_dtype(kind)) if t.dtype != torch.float64 else t for t in (g, h))
        self._g, self._h, self._offset = g, h, offset
        self.inputs = (g, h) if offset is None else (g, h, offset)
        self.shape = (len(g), len(h))
        self.row_bytes = len(h) * max(g.element_size(), 4)

    def matrix(self) -> Tensor:
        """(N, M) all products."""
        return with_affine(self._g @ self._h.T, None, self._offset)

    def at(self, rows: Index, columns: Index) -> Tensor:
        """(K,) products of some pairs of rows."""
        products = upcast(index_rows(self._g, rows)) * upcast(index_rows(self._h, columns))
        return with_affine(products.sum(-1), None, self._offset)

    @torch.no_grad()
    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, TileBackward]:
        """Products of some rows of g with all of h."""
        g, h = self._g[rows], self._h
        with full_precision(g.device.type):  # The factors have the one that they are multiplied in.
            scores = upcast(g @ h.T)
        if self._offset is not None:
            scores += self._offset

        def backward(weights: Tensor, into: list[Tensor | None]) -> None:
            of_g, of_h, *of_offset = into
            if of_offset and of_offset[0] is not None:
                of_offset[0] += weights.sum()
            weights = weights.to(g.dtype)
            with full_precision(g.device.type):
                if of_g is not None:
                    of_g[rows] += weights @ h
                if of_h is not None and of_h.dtype == g.dtype:
                    of_h.addmm_(weights.T, g)  # in place: no product as large as h
                elif of_h is not None:
                    of_h += weights.T @ g

        return scores, backward

    def detach(self) -> Products:
        """The same products of detached factors."""
        made = copy.copy(self)
        made.inputs = tuple(one.detach() for one in self.inputs)
        made._g, made._h = made.inputs[:2]
        made._offset = made.inputs[2] if len(made.inputs) == 3 else None
        return made

    def affine(self, scale: Tensor | None, offset: Tensor | None) -> AbstractTiles:
        """The scale goes into g; an offset there is is scaled too."""
        g = self._g if scale is None else self._g * scale
        scaled = None if self._offset is None else with_affine(self._offset, scale, offset)
        return Products(g, self._h, offset if scaled is None else scaled)


def tile_rows(tiles: AbstractTiles, tile_bytes: float | None) -> int | None:
    """How many rows a tile of about so many bytes holds, at least one; None where all scores are to be there at once.

    Tiles are of a size, so that none is small, and hold up to a tenth more than they are to. All scores are there at
    once where a tile would hold them, where by default tiles would be no faster, and where torch itself must see how
    scores are made (:func:`needs_plain_autograd`). So are integers, which no reduction takes.

    Raises:
        ValueError: ``tile_bytes`` is not positive.

    Example:
        >>> tile_rows(Products(torch.ones(4, 2), torch.ones(4, 2)), tile_bytes=32)
        2
    """
    check_tile_bytes(tile_bytes)
    fewest = 1
    if tile_bytes is None:
        tile_bytes = _TILE_BYTES if tiles.inputs[0].device.type == "cpu" else _TILE_BYTES_ELSEWHERE
        fewest = tiles.fewest_tiles
    num_rows, num_tiles = tiles.shape[0], tiles.shape[0] * tiles.row_bytes / tile_bytes
    if num_tiles <= fewest or needs_plain_autograd() or not tiles.inputs[0].is_floating_point():
        return None
    return max(math.ceil(num_rows / math.ceil(num_tiles - _SLACK)), 1)


def check_tile_bytes(tile_bytes: float | None) -> None:
    """Raise a ValueError unless this is a positive number or None."""
    if tile_bytes is not None and not tile_bytes > 0:
        raise ValueError(
            f"Got tile_bytes={tile_bytes}: it is the positive number of bytes that a tile of scores takes. None is "
            "what is fast on the device, math.inf keeps all scores at once."
        )


def index_rows(factors: Tensor, index: Index) -> Tensor:
    """Some of the rows; all of them as they are, since autograd would copy them there and back."""
    return factors if isinstance(index, slice) and index == slice(0, len(factors)) else factors[index]


def with_affine(scores: Tensor, scale: Tensor | None, offset: Tensor | None) -> Tensor:
    """Scores times a scale plus an offset, if there are any."""
    if scale is not None:
        scores = scores * scale
    return scores if offset is None else scores + offset
