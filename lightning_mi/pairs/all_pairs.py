"""Pairings of two views, or of what a batch brings as independent."""

from typing import ClassVar, final

from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs.base import AbstractTiledPairing, check_count, check_two_or_more
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.scores import Scores


@final
class AllPairs(AbstractTiledPairing):
    """Row i of x and row i of y are a joint pair; all N (N - 1) other combinations are marginal pairs.

    For InfoNCE a row is x_i against every y, its own included.

    Raises:
        ValueError: The batch has one sample, or x and y differ in length, or there are not two views.

    Example:
        >>> from lightning_mi import critics
        >>> AllPairs()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2)).num_marginal
        12
    """

    num_views: ClassVar[int | None] = 2

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of x (N, Dx) and y (N, Dy)."""
        check_count(views, "x", "y", pairing="AllPairs")
        share = self.share(*views)
        check_two_or_more(share, self.training)
        x, y = views[0], share.gather(views[1])
        return self.score_all(critic, x, y, JointColumns.of_diagonal(x, share.start), share)
