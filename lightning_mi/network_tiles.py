"""Tiles of scores that a network gives to pairs: a joint critic's."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from lightning_mi.numerics import full_precision, upcast
from lightning_mi.perceptron import Perceptron, gradients_again
from lightning_mi.tiles import AbstractTiles, Index, Pull, taken, with_affine


@final
class Networks(AbstractTiles):
    """Scores that a network gives to the sum of a row for x and a row for y.

    A tile of a perceptron is differentiated by hand, that of any other network by autograd.

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
        # What is kept of it, and as much again on the way back.
        self.row_bytes = 2 * len(hy) * sum(widths) * max(hx.element_size(), 4)
        kind = hx.device.type
        self._autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        alike = {one.dtype for one in self.inputs} in ({torch.float32}, {torch.float64})
        self._perceptron = Perceptron.of(rest) if alike and not torch.is_autocast_enabled(kind) else None
        self.fewest_tiles = 40 if self._perceptron is None else 6

    def matrix(self) -> Tensor:
        """(N, M) the scores of all pairs, with all that the network keeps of them."""
        hx, hy = self._halves
        if (own := self._perceptron) is not None and own.is_quicker_for(hx, copies=len(hy)):
            scores: Tensor = _Pairs.apply(own, hx, hy, *own.parameters)
        else:
            scores = self._score(hx, hy)
        return with_affine(scores, self._scale, self._offset)

    def at(self, rows: Index, columns: Index) -> Tensor:
        """(K,) scores of some pairs of rows."""
        hx, hy = self._halves
        with self._precision():
            scores: Tensor = self._rest(taken(hx, rows) + taken(hy, columns))
        return with_affine(upcast(scores.squeeze(-1)), self._scale, self._offset)

    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, Pull]:
        """Scores of some rows with all of hy."""
        if self._perceptron is None:
            plain, pull_network = self._by_autograd(rows, differentiate)
        else:
            plain, pull_network = self._by_hand(self._perceptron, rows)
        constants = [one for one in (self._scale, self._offset) if one is not None]
        with torch.no_grad():
            scores = with_affine(plain, self._scale, self._offset)

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

    def affine(self, scale: Tensor | None, offset: Tensor | None) -> AbstractTiles:
        """What follows the network."""
        made = copy.copy(self)
        if scale is not None:
            made._scale = scale if self._scale is None else self._scale * scale
        made._offset = offset if self._offset is None else with_affine(self._offset, scale, offset)
        made.inputs = (*self._halves, *self._parameters, *(t for t in (made._scale, made._offset) if t is not None))
        return made

    @torch.no_grad()
    def _by_hand(self, perceptron: Perceptron, rows: slice) -> tuple[Tensor, Pull]:
        hx, hy = (half.detach() for half in self._halves)
        with full_precision(hx.device.type):
            plain, kept = perceptron.forward(_sums(hx[rows], hy), overwrite=True)

        @torch.no_grad()
        def pull(weights: Tensor, into: list[Tensor | None]) -> None:
            wanted = [one is not None for one in into]
            with full_precision(hx.device.type):
                of_hx, *others = _gradients(perceptron, kept, weights, wanted)
            if into[0] is not None and of_hx is not None:
                into[0][rows] += of_hx
            for total, part in zip(into[1:], others, strict=True):
                if total is not None and part is not None:
                    total += part

        return plain.view(-1, len(hy)), pull

    def _by_autograd(self, rows: slice, differentiate: bool) -> tuple[Tensor, Pull]:
        hx, hy = (half.detach().requires_grad_(half.requires_grad and differentiate) for half in self._halves)
        with torch.set_grad_enabled(differentiate), self._precision():
            some = hx[rows].detach().requires_grad_(hx.requires_grad)
            scores = upcast(self._score(some, hy))

        def pull(weights: Tensor, into: list[Tensor | None]) -> None:
            wanted = [leaf for leaf in (some, hy, *self._parameters) if leaf.requires_grad]
            parts = iter(torch.autograd.grad(scores, wanted, weights))
            for index, total in enumerate(into):
                if total is not None:
                    (total[rows] if index == 0 else total).add_(next(parts))

        return scores.detach().clone(), pull

    def _score(self, hx: Tensor, hy: Tensor) -> Tensor:
        scores: Tensor = self._rest(_sums(hx, hy))
        return scores.view(len(hx), len(hy))

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        """That in which the critic was called, which a bound leaves."""
        kind, dtype, enabled = self._autocast
        with torch.autocast(kind, dtype=dtype, enabled=enabled):
            yield


class _Pairs(torch.autograd.Function):
    """The scores of all pairs by hand."""

    @staticmethod
    def forward(ctx: Any, perceptron: Perceptron, hx: Tensor, hy: Tensor, *parameters: Tensor) -> Tensor:
        output, kept = perceptron.forward(_sums(hx, hy), overwrite=True)
        ctx.perceptron = perceptron
        ctx.save_for_backward(hx, hy, *parameters, *kept)
        return output.view(len(hx), len(hy))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        perceptron, wanted = ctx.perceptron, ctx.needs_input_grad[1:]
        saved = ctx.saved_tensors
        inputs, kept = saved[: len(wanted)], saved[len(wanted) :]
        if not torch.is_grad_enabled():
            return None, *_gradients(perceptron, kept, upstream, wanted)
        hx, hy, *parameters = inputs
        output = perceptron.plainly(_sums(hx, hy), parameters)
        return None, *gradients_again(output, inputs, upstream.reshape(-1, 1), wanted)


def _sums(hx: Tensor, hy: Tensor) -> Tensor:
    """(N M, H) each row of one plus each row of the other."""
    return (hx.unsqueeze(1) + hy).flatten(0, 1)


def _gradients(
    perceptron: Perceptron, kept: Sequence[Tensor], upstream: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Those of hx, hy and the parameters from that of (N, M) scores; None where it is not wanted."""
    of_sums = wanted[0] or wanted[1]
    of_rows, *parts = perceptron.backward(kept, upstream.reshape(-1, 1), [of_sums, *wanted[2:]])
    if of_rows is None:
        return [None, None, *parts]
    of_pairs = of_rows.view(*upstream.shape, -1)
    return [of_pairs.sum(dim=1) if wanted[0] else None, of_pairs.sum(dim=0) if wanted[1] else None, *parts]
