"""Scores of this rank's samples with the candidates of all ranks, which pass round the ring of ranks.

An all-gather stores all M candidates on each rank. In a ring each rank stores two blocks of candidates, those of one
rank each: it computes with one while it receives the next. A reduction passes the blocks round once, and its gradient
passes them round again, together with the sum of their gradients, which comes back to their rank at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from lightning_mi.exceptions import RingGatherError
from lightning_mi.scores.batch_shard import BatchShard
from lightning_mi.scores.custom_gradient import needs_plain_autograd
from lightning_mi.scores.tile_gradients import AbstractWeights, WeightedGradient
from lightning_mi.scores.tile_reductions import AbstractTileReduction, TilePass
from lightning_mi.scores.tiles import AbstractTiles, AffineTiles, default_tile_bytes, tile_rows
from lightning_mi.utilities.point_to_point import pass_on


@final
class RingTiles:
    """(N, M) scores whose columns are those of all ranks, of which each rank holds a block at a time.

    Args:
        tiles: The scores of this rank's rows with the candidates of this rank.
        shard: This rank's candidates among those of all ranks.

    Attributes:
        shape: (N, M), with M candidates over all ranks.

    Raises:
        RingGatherError: The tiles cannot be computed for the candidates of another rank, or a custom backward is
            unsupported here.

    Example:
        >>> import torch
        >>> from lightning_mi.scores.tiles import ProductTiles
        >>> RingTiles(ProductTiles(torch.ones(2, 3), torch.ones(2, 3)), BatchShard((2, 4))).shape
        (2, 6)
    """

    def __init__(self, tiles: AbstractTiles, shard: BatchShard) -> None:
        if not tiles.column_inputs:
            raise RingGatherError(
                f"Got gather='ring' with {type(tiles).__name__}, which declares no `column_inputs`: its scores cannot "
                "be computed for the candidates of another rank. Declare them (AbstractTiles), or use gather=True."
            )
        if needs_plain_autograd():
            raise RingGatherError(
                "Got gather='ring' under torch.func, forward-mode AD, compile, export or tracing: its backward "
                "communicates, which these do not support. Use gather=True, or compile encoder and critic instead of "
                "the step."
            )
        self.tiles, self.shard = tiles, shard
        self.shape = (tiles.shape[0], shard.total)

    def first_pass(self, non_marginal: Tensor, joint: Tensor, tile_bytes: float | None) -> RingPass:
        """The pass over all blocks.

        Args:
            non_marginal: (N, k) as in :class:`TilePass`; columns of this rank's block.
            joint: (N,) the scores of the joint pairs, without gradient.
            tile_bytes: The memory of a tile, as in :func:`tile_rows`; by default a quarter of what is fast without a
                ring.
        """
        # Two tiles are live beside the blocks, which they must not outweigh.
        rows = tile_rows(self.tiles, tile_bytes or default_tile_bytes(self.tiles) // 4) or max(len(joint), 1)
        return RingPass(TilePass(self.tiles, non_marginal, joint, rows), self.shard)


@final
@dataclass(frozen=True)
class RingPass:
    """The blocks of a ring, one after another. Every rank must run the same passes in the same order.

    Attributes:
        local: The pass over this rank's block.
        shard: This rank's candidates among those of all ranks.
    """

    local: TilePass
    shard: BatchShard

    def run(self, *reductions: AbstractTileReduction) -> None:
        """Compute each tile of each block once and append it to all reductions."""
        self._pass_round(lambda block, _: block.run(*reductions), [])

    def gradient(self, sums: Sequence[tuple[AbstractWeights, Tensor]]) -> list[Tensor | None]:
        """The gradient of this rank's inputs: of its rows here, and of its candidates on all ranks.

        Args:
            sums: As in :class:`WeightedGradient`.
        """
        grads = self.local.tiles.accumulators()
        needed = [index for index in self.local.tiles.column_inputs if grads[index] is not None]

        def visit(block: TilePass, travelling: Sequence[Tensor]) -> None:
            for index, grad in zip(needed, travelling, strict=True):
                grads[index] = grad
            block.run(WeightedGradient(block, sums, inputs=grads), differentiate=True)

        home = self._pass_round(visit, [grad for index in needed if (grad := grads[index]) is not None])
        for index, grad in zip(needed, home, strict=True):
            grads[index] = grad
        return grads

    def with_offset(self, offset: Tensor) -> RingPass:
        """The same scores minus an offset of each candidate of this rank, (N_r,)."""
        tiles = AffineTiles(self.local.tiles, None, -offset)
        return dataclasses.replace(self, local=dataclasses.replace(self.local, tiles=tiles))

    def scaled(self, factor: float, joint: Tensor) -> RingPass:
        """The scores times a factor; ``joint`` holds the scaled scores of the joint pairs, (N,)."""
        return dataclasses.replace(self, local=self.local.scaled(factor, joint))

    def detach(self) -> RingPass:
        """The same scores without their autograd graph."""
        return dataclasses.replace(self, local=self.local.detach())

    # Not decorated: a wrapper would hold the arguments, and so this rank's sums after they have left it.
    def _pass_round(
        self, visit: Callable[[TilePass, Sequence[Tensor]], None], grads: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """Visit each block on its way round the ring, with sums that travel with it.

        Args:
            visit: Gets the pass over a block and its sums, to which it adds in place.
            grads: The sums of this rank's block.

        Returns:
            The sums of this rank's block, after all ranks have added to them.
        """
        counts, size = self.shard.counts, len(self.shard.counts)
        tiles = self.local.tiles
        columns = [tiles.inputs[index].detach() for index in tiles.column_inputs]
        block = self.local
        for step in range(size):
            # This rank holds the block of rank - step, and the previous rank that of the rank before.
            next_owner = (self.shard.rank - step - 1) % size
            receive = pass_on(columns, counts[next_owner]) if step < size - 1 else None
            if block.tiles.shape[1]:
                visit(block, grads)
            if receive is not None:
                columns, receive = receive(), None  # None: what is pending holds the block that was sent
                block = self._other_block(columns)
            if grads:
                grads = pass_on(grads, counts[next_owner])()
        return grads

    def _other_block(self, columns: Sequence[Tensor]) -> TilePass:
        """The pass over the candidates of another rank, none of which is in a joint pair."""
        inputs = list(self.local.tiles.inputs)
        for index, column in zip(self.local.tiles.column_inputs, columns, strict=True):
            inputs[index] = column.detach().requires_grad_(inputs[index].requires_grad)
        return dataclasses.replace(
            self.local, tiles=self.local.tiles.with_inputs(inputs), non_marginal=self.local.non_marginal[:, :0]
        )
