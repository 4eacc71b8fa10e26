"""TwoTowers: two encoders, compared in both directions."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs._both_directions import check_has_directions, score_both_directions
from lightning_mi.pairs.base import AbstractTiledPairing
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.scores import Scores


@final
class TwoTowers(AbstractTiledPairing):
    """Row i of x and row i of y are a joint pair; x is compared with every y, and y with every x.

    The rows of scores are those of the (N, N) score matrix, each x against every y, and then those of its transpose,
    each y against every x. For InfoNCE value and objective are the mean of both directions, at most log N: the loss of
    CLIP with the opposite sign, plus log N. x is never a candidate of x, so both views may have encoders of their own.

    A bound without rows (DV, NWJ, JS, ...) has the terms of :class:`AllPairs`: each pair occurs twice. A learned
    baseline a(y) and a critic of log-densities q(y | x) belong to one direction: use :class:`AllPairs` for them.

    With several ranks each rank scores its x against all y and its y against all x. In one process the score matrix is
    computed once, unless it is computed in tiles.

    Args:
        gather: As in :class:`AbstractPairing`.
        tile_bytes: As in :class:`AllPairs`.

    Raises:
        ValueError: A training batch has fewer than two samples, x and y differ in length, the number of views is not
            two, or the critic gives log-densities.

    Source: Radford et al. 2021.

    Example:
        >>> from lightning_mi import bounds, critics
        >>> scores = TwoTowers()(critics.InnerProductCritic(), 9 * torch.eye(4), 9 * torch.eye(4))
        >>> scores.num_joint, scores.num_marginal, scores.num_candidates
        (8, 24, 4)
        >>> bounds.InfoNCE()(scores).value  # log 4
        tensor(1.3863)
    """

    num_views: ClassVar[int | None] = 2
    has_ring: ClassVar[bool] = False  # x and y would both pass round

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of x (N, Dx) and y (N, Dy): 2 N rows, x first."""
        check_num_views(views, "x", "y", pairing="TwoTowers")
        check_has_directions(critic, "TwoTowers")
        x, y = views
        shard = self.shard(x, y)
        check_batch_size(shard, self.training)
        scores = score_both_directions(critic, views, shard.gather_all(x, y) if shard.pooled else None)
        joint = torch.arange(shard.start, shard.start + len(x), device=x.device).repeat(2)
        rows, candidates = 2 * shard.total, shard.total
        pooled = shard.pooled and GlobalCounts(rows, rows * (candidates - 1), rows, candidates, len(shard.counts))
        return Scores.from_columns(scores, JointColumns(joint), pooled=pooled, tile_bytes=self.tile_bytes)
