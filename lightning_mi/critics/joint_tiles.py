"""Tiles of scores that a network gives to pairs: a joint critic's."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from lightning_mi.scores.tiles import AbstractTiles, Index, TileBackward, index_rows, with_affine
from lightning_mi.utilities.numerics import upcast


@final
class Networks(AbstractTiles):
    """Scores that a network gives to the sum of a row for x and a row for y.

    A tile is differentiated by autograd, and its graph is dropped before the next tile is made.

    Args:
        hx: (N, H).
        hy: (M, H).
        rest: Maps (K, H) to (K, 1), each row by itself, and leaves its input unchanged.

    Example:
        >>> from torch import nn
        >>> tiles = Networks(torch.ones(3, 2), torch.ones(4, 2), nn.Linear(2, 1))
        >>> tiles.tile(slice(1, 3), differentiate=False)[0].shape
        torch.Size([2, 4])
    """

    fewest_tiles = 40

    def __init__(self, hx: Tensor, hy: Tensor, rest: nn.Module) -> None:
        self._rest = rest
        self._halves = (hx, hy)
        self._scale: Tensor | None = None
        self._offset: Tensor | None = None
        self._parameters: tuple[Tensor, ...] = tuple(rest.parameters())
        self.inputs = (hx, hy, *self._parameters)
        self.shape = (len(hx), len(hy))
        widths = [hx.shape[1], *(getattr(layer, "out_features", 0) for layer in rest.modules())]
        # The activations, and as much again for their gradients.
        self.row_bytes = 2 * len(hy) * sum(widths) * max(hx.element_size(), 4)
        kind = hx.device.type
        self._autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))

    def matrix(self) -> Tensor:
        """(N, M) the scores of all pairs, with all activations."""
        with self._recorded():
            return with_affine(self._score(*self._halves), self._scale, self._offset)

    def at(self, rows: Index, columns: Index) -> Tensor:
        """(K,) scores of some pairs of rows."""
        hx, hy = self._halves
        with self._recorded(), self._precision():
            scores: Tensor = self._rest(index_rows(hx, rows) + index_rows(hy, columns))
        return with_affine(upcast(scores.squeeze(-1)), self._scale, self._offset)

    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, TileBackward]:
        """Scores of some rows with all of hy."""
        hx, hy = (half.detach().requires_grad_(half.requires_grad and differentiate) for half in self._halves)
        with torch.set_grad_enabled(differentiate), self._precision():
            hx_rows = hx[rows].detach().requires_grad_(hx.requires_grad)
            network_scores = upcast(self._score(hx_rows, hy))
        constants = [one for one in (self._scale, self._offset) if one is not None]
        with torch.no_grad():
            plain = network_scores.detach().clone()  # a caller may overwrite the scores, autograd needs its own
            scores = with_affine(plain, self._scale, self._offset)

        def backward(weights: Tensor, into: list[Tensor | None]) -> None:
            of_constants = into[len(into) - len(constants) :]
            if self._offset is not None and (of_offset := of_constants.pop()) is not None:
                of_offset += weights.sum()
            if self._scale is not None:
                if (of_scale := of_constants.pop()) is not None:
                    of_scale += (weights * plain).sum()
                weights = weights * self._scale.detach()
            leaves = [leaf for leaf in (hx_rows, hy, *self._parameters) if leaf.requires_grad]
            parts = iter(torch.autograd.grad(network_scores, leaves, weights) if leaves else ())
            for index, total in enumerate(into[: len(into) - len(constants)]):
                if total is not None:
                    (total[rows] if index == 0 else total).add_(next(parts))

        return scores, backward

    def detach(self) -> Networks:
        """The same network on detached halves."""
        made = copy.copy(self)
        made._halves = (self._halves[0].detach(), self._halves[1].detach())
        made._parameters = tuple(one.detach() for one in self._parameters)
        made._scale = None if self._scale is None else self._scale.detach()
        made._offset = None if self._offset is None else self._offset.detach()
        return made._with_inputs()

    def affine(self, scale: Tensor | None, offset: Tensor | None) -> AbstractTiles:
        """The network's scores times a scale plus an offset."""
        made = copy.copy(self)
        if scale is not None:
            made._scale = scale if self._scale is None else self._scale * scale
        made._offset = offset if self._offset is None else with_affine(self._offset, scale, offset)
        return made._with_inputs()

    def _with_inputs(self) -> Networks:
        constants = (one for one in (self._scale, self._offset) if one is not None)
        self.inputs = (*self._halves, *self._parameters, *constants)
        return self

    def _score(self, hx: Tensor, hy: Tensor) -> Tensor:
        pairs = (hx.unsqueeze(1) + hy).flatten(0, 1)  # (N M, H) each row of hx plus each row of hy
        scores: Tensor = self._rest(pairs)
        return scores.view(len(hx), len(hy))

    def _recorded(self) -> contextlib.AbstractContextManager[object]:
        """Autograd records the network unless these tiles are detached, though its own parameters need a gradient."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and any(one.requires_grad for one in self.inputs))

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        """The autocast state in which the critic was called, which a bound leaves."""
        kind, dtype, enabled = self._autocast
        with torch.autocast(kind, dtype=dtype, enabled=enabled):
            yield
