"""Tiles of a joint critic: scores of pairs, computed by a network."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from lightning_mi.scores.tiles import AbstractTiles, TileBackward
from lightning_mi.utilities.numerics import upcast


@final
class NetworkTiles(AbstractTiles):
    """Scores f(hx + hy) of a network f, applied to the sum of a row for x and a row for y.

    Autograd differentiates each tile; its graph is freed before the next tile is computed.

    Args:
        hx: (N, H).
        hy: (M, H).
        network: Maps (K, H) to (K, 1), each row by itself, and does not overwrite its input.

    Example:
        >>> from torch import nn
        >>> tiles = NetworkTiles(torch.ones(3, 2), torch.ones(4, 2), nn.Linear(2, 1))
        >>> tiles.tile(slice(1, 3), differentiate=False)[0].shape
        torch.Size([2, 4])
    """

    column_inputs = (1,)
    fewest_tiles = 40  # up to this many, the dense form is as fast; benchmarks/scoring.py compares them

    def __init__(self, hx: Tensor, hy: Tensor, network: nn.Module) -> None:
        self._network = network
        self.inputs = (hx, hy, *network.parameters())
        self.shape = (len(hx), len(hy))
        widths = [hx.shape[1], *(getattr(layer, "out_features", 0) for layer in network.modules())]
        # Activations, and as much again for their gradients.
        self.row_bytes = 2 * len(hy) * sum(widths) * max(hx.element_size(), 4)
        device_type = hx.device.type
        self._autocast = (
            device_type,
            torch.get_autocast_dtype(device_type),
            torch.is_autocast_enabled(device_type),
        )

    def matrix(self) -> Tensor:
        """(N, M) the scores of all pairs, with all activations."""
        with self._grad_mode():
            return self._score(*self.inputs[:2])

    def at(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """(K,) scores of some pairs of rows."""
        hx, hy = self.inputs[:2]
        with self._grad_mode(), self._critic_autocast():
            scores: Tensor = self._network(hx[rows] + hy[columns])
        return upcast(scores.squeeze(-1))

    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, TileBackward]:
        """Scores of some rows of hx with all rows of hy."""
        hx, hy, *parameters = self.inputs
        # New leaves: the graph of a tile ends at them, so that it is freed with the tile.
        leaves = [
            hx.detach()[rows].requires_grad_(hx.requires_grad and differentiate),
            hy.detach().requires_grad_(hy.requires_grad and differentiate),
        ]
        with torch.set_grad_enabled(differentiate), self._critic_autocast():
            scores = upcast(self._score(*leaves))

        def backward(weights: Tensor, into: list[Tensor | None]) -> None:
            # hx contributes to the rows of this tile; hy and the parameters contribute to every tile.
            grad_hx, *grads_shared = into
            totals = [None if grad_hx is None else grad_hx[rows], *grads_shared]
            needed = [
                (leaf, total) for leaf, total in zip([*leaves, *parameters], totals, strict=True) if total is not None
            ]
            if needed:
                grads = torch.autograd.grad(scores, [leaf for leaf, _ in needed], weights)
                for (_, total), grad in zip(needed, grads, strict=True):
                    total.add_(grad)

        return scores.detach().clone(), backward  # a copy: autograd may need the scores that the caller overwrites

    def transpose(self) -> NetworkTiles:
        """(M, N) the scores with a row for each row of hy: the network adds hx and hy, in either order."""
        transposed = copy.copy(self)
        hx, hy, *parameters = self.inputs
        transposed.inputs, transposed.shape = (hy, hx, *parameters), (len(hy), len(hx))
        transposed.row_bytes = self.row_bytes // max(len(hy), 1) * len(hx)
        return transposed

    def _score(self, hx: Tensor, hy: Tensor) -> Tensor:
        pairs = (hx.unsqueeze(1) + hy).flatten(0, 1)  # (N M, H) each row of hx plus each row of hy
        scores: Tensor = self._network(pairs)
        return scores.view(len(hx), len(hy))

    def _grad_mode(self) -> contextlib.AbstractContextManager[object]:
        """Autograd records nothing if these tiles are detached, although the network's parameters need a gradient."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.inputs))

    @contextlib.contextmanager
    def _critic_autocast(self) -> Iterator[None]:
        """Context manager: the autocast state in which the critic was called; bounds disable autocast."""
        device_type, dtype, enabled = self._autocast
        with torch.autocast(device_type, dtype=dtype, enabled=enabled):
            yield
