"""Gradients of reductions over tiled scores as custom backwards: precomputed in forward, or in a pass of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from torch import Tensor

from lightning_mi.scores.custom_gradient import zeros_with_gradient
from lightning_mi.scores.ring import RingPass
from lightning_mi.scores.tile_gradients import AbstractWeights, LogMeanExpGradient, RowMeanGradient, WeightedGradient
from lightning_mi.scores.tile_reductions import TilePass


@final
class DeferredGradients:
    """Zeros whose gradients are computed in one pass over the tiles, in backward.

    Zeros that have no weights or no gradient in backward cost nothing.
    """

    def __init__(
        self, tile_pass: TilePass | RingPass, shapes: Sequence[tuple[int, ...]], offset: Tensor | None = None
    ) -> None:
        saved: list[AbstractWeights] = []

        # It references `saved` and not this object: zeros -> autograd -> zeros would be a reference cycle.
        def backward(grad_output: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
            pairs = zip(saved, grad_output, strict=False)
            sums = [(weights, grad) for weights, grad in pairs if grad is not None]
            if isinstance(tile_pass, RingPass):
                return tile_pass.gradient(sums)
            return run_gradient(tile_pass, WeightedGradient(tile_pass, sums, offset))

        self._weights, local = saved, tile_pass.local
        self._zeros = zeros_with_gradient(backward, inputs_of(local, offset), shapes, local.joint)

    @property
    def is_full(self) -> bool:
        """Whether every zero has weights."""
        return len(self._weights) == len(self._zeros)

    def append(self, weights: AbstractWeights) -> Tensor:
        """The next zero, whose gradient has these weights."""
        self._weights.append(weights)
        return self._zeros[len(self._weights) - 1]


def zero_with_gradient(
    inputs: Sequence[Tensor], gradient: Sequence[Tensor | None], recompute: Callable[[], Sequence[Tensor | None]]
) -> Tensor:
    """A scalar zero with a precomputed gradient, which backward scales in place; a second backward recomputes it."""
    saved = [gradient]

    def backward(grad_output: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        (factor,) = grad_output
        parts = saved.pop() if saved else recompute()
        for part in parts:
            if part is not None and factor is not None:
                part *= factor
        return parts

    (zero,) = zeros_with_gradient(backward, inputs, [()], inputs[0])
    return zero


def run_gradient(
    tile_pass: TilePass, reduction: LogMeanExpGradient | RowMeanGradient | WeightedGradient
) -> Sequence[Tensor | None]:
    """The gradient of a reduction, in one pass."""
    tile_pass.run(reduction, differentiate=True)
    return reduction.finish()


def inputs_of(tile_pass: TilePass, offset: Tensor | None) -> tuple[Tensor, ...]:
    """The inputs of the tiles and, if there is one, the offset."""
    return tile_pass.tiles.inputs if offset is None else (*tile_pass.tiles.inputs, offset)
