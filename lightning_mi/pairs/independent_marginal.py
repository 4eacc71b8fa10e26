"""IndependentMarginal: marginal pairs that are entries of the batch."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_not_empty, check_num_views
from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.scores import Scores


@final
class IndependentMarginal(AbstractPairing):
    """A batch has four views: x, y of joint pairs, and x', y' of marginal pairs, drawn independently.

    It has no rows, so InfoNCE cannot use it. Means run over the pairs of all ranks.

    Args:
        gather: As in :class:`AbstractPairing`.

    Raises:
        TypeError: x and x', or y and y', differ in dtype.
        ValueError: x and y, or x' and y', differ in length; x and x', or y and y', differ in width; or the number of
            views is not four.

    Example:
        >>> from lightning_mi import critics
        >>> x = torch.ones(4, 2)
        >>> IndependentMarginal()(critics.InnerProductCritic(), x, x, x[:3], x[:3]).num_marginal
        3
    """

    num_views: ClassVar[int | None] = 4

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, Dx) with y (N, Dy), and of x' (K, Dx) with y' (K, Dy)."""
        names = ("x", "y", "x_marginal", "y_marginal")
        check_num_views(views, *names, pairing="IndependentMarginal")
        for first, second in (0, 2), (1, 3):
            _check_same_variable(names[first], views[first], names[second], views[second])
        shard, _, marginal, _ = self.shards(*views)
        check_not_empty(shard)
        x, y, x_marginal, y_marginal = views
        pooled = shard.pooled and GlobalCounts(
            shard.total, marginal.total, marginal.total, world_size=len(shard.counts)
        )
        return Scores.from_samples(
            critic.paired(x, y),
            critic.paired(x_marginal, y_marginal),
            y=torch.cat([y, y_marginal]),
            pooled=pooled,
        )


def _check_same_variable(name: str, view: Tensor, marginal_name: str, marginal: Tensor) -> None:
    """Check that samples of marginal pairs have the dtype and width of those of joint pairs."""
    if marginal.shape[1:] != view.shape[1:]:
        raise ValueError(
            f"Got {name} of shape {tuple(view.shape)} and {marginal_name} of shape {tuple(marginal.shape)}: both are "
            "samples of one variable, so they differ in length only. Check the order of the batch: x, y, x', y'."
        )
    if marginal.dtype != view.dtype:
        raise TypeError(
            f"Got {name} of type {view.dtype} and {marginal_name} of type {marginal.dtype}: both are samples of one "
            f"variable. Write {marginal_name}.to({view.dtype})."
        )
