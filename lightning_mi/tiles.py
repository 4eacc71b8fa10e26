"""Tiles: scores of every x with every y, as a critic can make them a few rows at a time, and pull gradients back."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import final

import torch
from torch import Tensor, nn

from lightning_mi.matrix_product import matrix_product
from lightning_mi.numerics import full_precision, upcast
from lightning_mi.perceptron import Perceptron

_TILE_BYTES = 4 * 2**20  # stays in a processor's last cache
_TILE_BYTES_ELSEWHERE = 2**28  # An accelerator has memory, and wants work.

_COLUMNS = 4096  # whose gradient is made at once; that of all would be as large as what it is added to

Index = Tensor | slice
# Adds the gradient that weights dL/dS of a tile give to the accumulators of the inputs; None where none is needed.
Pull = Callable[[Tensor, list[Tensor | None]], None]


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
    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, Pull]:
        """The scores of some rows, float32 or wider and free to be overwritten until the next tile; no autograd.

        Args:
            rows: Which ones.
            differentiate: Whether what is returned beside the scores will be called: once, before the next tile.
        """

    @abstractmethod
    def affine(self, scale: Tensor | None, offset: Tensor | None) -> AbstractTiles:
        """The same scores, times a scale, plus an offset; scalars."""

    @final
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
        return _affine(self._g @ self._h.T, None, self._offset)

    def at(self, rows: Index, columns: Index) -> Tensor:
        """(K,) products of some pairs of rows."""
        products = upcast(_taken(self._g, rows)) * upcast(_taken(self._h, columns))
        return _affine(products.sum(-1), None, self._offset)

    @torch.no_grad()
    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, Pull]:
        """Products of some rows of g with all of h."""
        g, h = self._g[rows], self._h
        with full_precision(g.device.type):  # The factors have the one that they are multiplied in.
            scores = upcast(matrix_product(g, h.T))
        if self._offset is not None:
            scores += self._offset

        def pull(weights: Tensor, into: list[Tensor | None]) -> None:
            of_g, of_h, *of_offset = into
            if of_offset and of_offset[0] is not None:
                of_offset[0] += weights.sum()
            weights = weights.to(g.dtype)
            with full_precision(g.device.type):
                for start in range(0, len(h), _COLUMNS):
                    some = slice(start, start + _COLUMNS)
                    of_some = weights[:, some].contiguous()
                    if of_g is not None:
                        of_g[rows] += matrix_product(of_some, h[some])
                    if of_h is not None:
                        of_h[some] += matrix_product(of_some.T, g)

        return scores, pull

    def affine(self, scale: Tensor | None, offset: Tensor | None) -> AbstractTiles:
        """The scale goes into g; an offset there is is scaled too."""
        g = self._g if scale is None else self._g * scale
        scaled = None if self._offset is None else _affine(self._offset, scale, offset)
        return Products(g, self._h, offset if scaled is None else scaled)


@final
class Networks(AbstractTiles):
    """Scores that a network gives to the sum of a row for x and a row for y; each tile is differentiated by itself.

    Args:
        hx: (N, H).
        hy: (M, H).
        rest: Maps (K, H) to (K, 1), each row by itself, and leaves its input as it is.

    Example:
        >>> from torch import nn
        >>> tiles = Networks(torch.ones(3, 2), torch.ones(4, 2), nn.Linear(2, 1))
        >>> tiles.tile(slice(1, 3), differentiate=False)[0].shape
        torch.Size([2, 4])
    """

    def __init__(self, hx: Tensor, hy: Tensor, rest: nn.Module) -> None:
        self._rest = rest
        self._halves = (hx, hy)
        self._scale: Tensor | None = None
        self._offset: Tensor | None = None
        self._parameters = tuple(rest.parameters())
        self.inputs = (hx, hy, *self._parameters)
        self.shape = (len(hx), len(hy))
        widths = [hx.shape[1], *(getattr(layer, "out_features", 0) for layer in rest.modules())]
        self.row_bytes = len(hy) * sum(widths) * max(hx.element_size(), 4)  # what is kept of it
        kind = hx.device.type
        self._autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        wide = hx.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(kind)
        self._perceptron = Perceptron.of(rest) if wide else None
        self.fewest_tiles = 20 if self._perceptron is None else 2

    def matrix(self) -> Tensor:
        """(N, M) the scores of all pairs, with all that the network keeps of them."""
        hx, hy = self._halves
        return self._score(hx, hy, self._scale, self._offset)

    def at(self, rows: Index, columns: Index) -> Tensor:
        """(K,) scores of some pairs of rows."""
        hx, hy = self._halves
        with self._precision():
            scores: Tensor = self._rest(_taken(hx, rows) + _taken(hy, columns))
        return _affine(upcast(scores.squeeze(-1)), self._scale, self._offset)

    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, Pull]:
        """Scores of some rows with all of hy."""
        make = self._by_autograd if self._perceptron is None else self._by_hand
        plain, pull_network = make(rows, differentiate)
        constants = [one for one in (self._scale, self._offset) if one is not None]
        with torch.no_grad():
            scores = _affine(plain, self._scale, self._offset)

        def pull(weights: Tensor, into: list[Tensor | None]) -> None:
            of_constants = into[len(into) - len(constants) :]
            if self._offset is not None and (of_offset := of_constants.pop()) is not None:
                of_offset += weights.sum()
            if self._scale is not None:
                if (of_scale := of_constants.pop()) is not None:
                    of_scale += (weights * plain).sum()
                weights = weights * self._scale.detach()
            pull_network(weights, into[: len(into) - len(constants)])

        return scores, pull

    def _by_hand(self, rows: slice, differentiate: bool) -> tuple[Tensor, Pull]:
        hx, hy = (half.detach() for half in self._halves)
        assert self._perceptron is not None
        with full_precision(hx.device.type):
            plain, kept = self._perceptron.forward((hx[rows].unsqueeze(1) + hy).flatten(0, 1))

        def pull(weights: Tensor, into: list[Tensor | None]) -> None:
            of_hx, of_hy, *of_parameters = into
            with full_precision(hx.device.type):
                of_rows = self._perceptron.backward(kept, weights.flatten(), of_parameters).view(-1, *hy.shape)
            if of_hx is not None:
                of_hx[rows] += of_rows.sum(dim=1)
            if of_hy is not None:
                of_hy += of_rows.sum(dim=0)

        return plain.view(-1, len(hy)), pull

    def _by_autograd(self, rows: slice, differentiate: bool) -> tuple[Tensor, Pull]:
        hx, hy = self._halves
        own = [
            half.detach().requires_grad_(half.requires_grad and differentiate)
            for half in (hx[rows], hy)
        ]
        with torch.set_grad_enabled(differentiate), self._precision():
            scores = upcast(self._score(*own, None, None))

        def pull(weights: Tensor, into: list[Tensor | None]) -> None:
            wanted = [leaf for leaf in (*own, *self._parameters) if leaf.requires_grad]
            parts = iter(torch.autograd.grad(scores, wanted, weights))
            for index, total in enumerate(into):
                if total is not None:
                    (total[rows] if index == 0 else total).add_(next(parts))

        return scores.detach().clone(), pull

    def affine(self, scale: Tensor | None, offset: Tensor | None) -> AbstractTiles:
        """What follows the network."""
        made = copy.copy(self)
        if scale is not None:
            made._scale = scale if self._scale is None else self._scale * scale
        made._offset = offset if self._offset is None else _affine(self._offset, scale, offset)
        made.inputs = (*self._halves, *self._parameters, *(t for t in (made._scale, made._offset) if t is not None))
        return made

    def _score(self, hx: Tensor, hy: Tensor, scale: Tensor | None, offset: Tensor | None) -> Tensor:
        scores: Tensor = self._rest((hx.unsqueeze(1) + hy).flatten(0, 1))
        return _affine(scores.view(len(hx), len(hy)), scale, offset)

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        """That in which the critic was called, which a bound leaves."""
        kind, dtype, enabled = self._autocast
        with torch.autocast(kind, dtype=dtype, enabled=enabled):
            yield


def tile_rows(tiles: AbstractTiles, tile_bytes: float | None) -> int | None:
    """How many rows a tile of so many bytes holds, at least one; None where all scores are to be there at once.

    They are where a tile would hold them all, where by default tiles would be no faster, and where torch itself must
    see how scores are made: under its function transforms (``torch.func``, vmap) and while it compiles. So are
    integers, which no reduction takes.

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
    seen = torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()
    if seen or not tiles.inputs[0].is_floating_point() or tiles.shape[0] * tiles.row_bytes <= fewest * tile_bytes:
        return None
    return max(int(tile_bytes // tiles.row_bytes), 1)


def check_tile_bytes(tile_bytes: float | None) -> None:
    """Raise a ValueError unless this is a positive number or None."""
    if tile_bytes is not None and not tile_bytes > 0:
        raise ValueError(
            f"Got tile_bytes={tile_bytes}: it is the positive number of bytes that a tile of scores takes. None is "
            "what is fast on the device, math.inf keeps all scores at once."
        )


def _taken(factors: Tensor, index: Index) -> Tensor:
    """Some of the rows; all of them as they are, since autograd would copy them there and back."""
    return factors if isinstance(index, slice) and index == slice(0, len(factors)) else factors[index]


def _affine(scores: Tensor, scale: Tensor | None, offset: Tensor | None) -> Tensor:
    if scale is not None:
        scores = scores * scale
    return scores if offset is None else scores + offset
