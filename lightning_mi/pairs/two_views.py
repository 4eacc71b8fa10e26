"""TwoViews: the contrastive pairing of two views of each sample."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs._rows import AbstractRowPairing, Rows
from lightning_mi.pairs.known_law import is_exchangeable, known_mi
from lightning_mi.scores.joint_columns import JointColumns


@final
class TwoViews(AbstractRowPairing):
    """Contrastive pairing: two views of each sample, and every view against every other view.

    The 2 N views of a batch form one list. The two views of a sample are joint pairs, in both directions; views of
    different samples are the 4 N (N - 1) marginal pairs. For InfoNCE a row is a view against all other views, so its
    ceiling is log(2 N - 1). The critic scores x against x too, so both views have the same shape.

    A joint pair is (x, y) or (y, x), each with probability 1/2, and both sides of a marginal pair have the mixture of
    p(x) and p(y) as their law. So the estimate is one of I(x; y) if the views are exchangeable, p(x, y) = p(y, x) (the
    data module declares ``exchangeable = True``), and one encoder maps both. Otherwise the estimated number is
    different: log 2 more than I(x; y) if every x can be distinguished from every y, and less if x and y have the same
    law but p(x, y) is not symmetric.

    Source: Chen et al. 2020 (SimCLR).

    Args:
        gather: True, False or ``"ring"``, as in :class:`AbstractTiledPairing`.
        tile_bytes: As in :class:`AllPairs`.

    Raises:
        ValueError: A training batch has fewer than two samples, x and y differ in shape, or the number of views is not
            two.

    Example:
        >>> from lightning_mi import critics
        >>> scores = TwoViews()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2))
        >>> scores.num_joint, scores.num_marginal, scores.num_candidates
        (8, 48, 7)
    """

    num_views: ClassVar[int | None] = 2
    mixes_views: ClassVar[bool] = True

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """I(x; y) if the views are exchangeable, otherwise None."""
        return known_mi(data) if is_exchangeable(data) else None

    def arrange(self, critic: AbstractCritic, *views: Tensor) -> Rows:
        """Rows and candidates: the views x (N, D) and y (N, D) of N samples."""
        check_num_views(views, "x", "y", pairing="TwoViews")
        x, y = views
        if x.shape[1:] != y.shape[1:]:
            raise ValueError(
                f"Got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: TwoViews scores every view against "
                "every other, so both have the same shape. Use one encoder for both, or AllPairs."
            )
        shard = self.shard(x, y)
        check_batch_size(shard, self.training)
        held = self.held_shard(shard)
        candidates = torch.cat(held.gather_all(x, y))
        first = torch.arange(held.start, held.start + len(x), device=x.device)
        second = held.total + first
        columns = JointColumns(torch.cat([second, first]), excluded=torch.cat([first, second]))
        rows = shard.repeat(2)
        return Rows(torch.cat([x, y]), candidates, columns, rows, num_rows=rows.total)
