"""TwoViews: the contrastive pairing of two views of each sample."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs.base import AbstractTiledPairing, check_count, check_two_or_more
from lightning_mi.pairs.known_law import known_mi
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.scores import Scores


@final
class TwoViews(AbstractTiledPairing):
    """Contrastive pairing: two views of each sample, and every view against every other.

    The 2 N views of a batch are put into one list z. The two views of a sample are joint pairs, in both directions;
    views of different samples are the marginal pairs, 4 N (N - 1) of them. For InfoNCE a row is a view against all
    others but itself, so its ceiling is log(2 N - 1). The critic scores x against x too: both are of the same kind.

    A joint pair is (x, y) or (y, x), each with probability 1/2, and both sides of a marginal pair are drawn from the
    mixture of p(x) and p(y). So what is estimated is I(x; y) if the two views are exchangeable, that is
    p(x, y) = p(y, x) (the data module states ``exchangeable = True``), and one encoder takes both. Otherwise it is
    another number: log 2 more than I(x; y) where every x can be told from every y, and less where both have the same
    law and p(x, y) is not symmetric.

    Source: Chen et al. 2020 (SimCLR).

    Raises:
        ValueError: The batch has one sample, or x and y differ in shape, or there are not two views.

    Example:
        >>> from lightning_mi import critics
        >>> scores = TwoViews()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2))
        >>> scores.num_joint, scores.num_marginal, scores.num_candidates
        (8, 48, 7)
    """

    num_views: ClassVar[int | None] = 2
    mixes_views: ClassVar[bool] = True

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """I(x; y) of exchangeable views; None of others."""
        return known_mi(data) if getattr(data, "exchangeable", False) else None

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of the views x (N, D) and y (N, D) of N samples."""
        check_count(views, "x", "y", pairing="TwoViews")
        x, y = views
        if x.shape[1:] != y.shape[1:]:
            raise ValueError(
                f"Got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: TwoViews scores every view against "
                "every other, so they are alike. Use one encoder for both, or AllPairs."
            )
        share = self.share(x, y)
        check_two_or_more(share, self.training)
        candidates = torch.cat(share.gather_all(x, y))
        first = torch.arange(share.start, share.start + len(x), device=x.device)
        second = share.total + first
        columns = JointColumns(torch.cat([second, first]), excluded=torch.cat([first, second]))
        return self.score_all(critic, torch.cat([x, y]), candidates, columns, share)
