"""Derangement: marginal pairs from a shuffle without fixed points."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs.base import AbstractPairing, check_count, check_two_or_more
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.distributed import rank_generator


@final
class Derangement(AbstractPairing):
    """Row i of x and row i of y are a joint pair; N marginal pairs come from a shuffle of y without fixed points.

    The shuffle is one random cycle, so no marginal pair is a joint one. Cheaper than all pairs for a joint critic,
    and noisier. Without rows: InfoNCE cannot use it. Each process shuffles its own samples, and averages run over the
    pairs of all processes.

    Raises:
        ValueError: The batch, or a process's share of it, has one sample, or x and y differ in length, or there are
            not two views.

    Example:
        >>> from lightning_mi import critics
        >>> Derangement()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2)).num_marginal
        4
    """

    num_views: ClassVar[int | None] = 2

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, Dx) with y (N, Dy), and with y shuffled."""
        check_count(views, "x", "y", pairing="Derangement")
        share = self.share(*views)
        check_two_or_more(share, self.training)
        if self.training and 1 in share.counts:
            raise ValueError(
                f"Got batches of {', '.join(map(str, share.counts))} on the processes: Derangement shuffles within "
                "each, so each holds two or more samples, or none. Choose another batch size, or drop the last, "
                "smaller batch: DataLoader(..., drop_last=True)."
            )
        x, y = views
        order = torch.randperm(len(x), device=x.device, generator=rank_generator(x.device))
        shuffle = torch.empty_like(order)
        shuffle[order] = order.roll(1)
        pooled = share.pooled and GlobalCounts(share.total, share.total, share.total, world_size=len(share.counts))
        return Scores.from_samples(
            critic.paired(x, y),
            critic.paired(x, y[shuffle]) if len(x) > 1 else x.new_empty(0),
            y=y,
            marginal_columns=shuffle if len(x) > 1 else shuffle[:0],
            allow_no_marginal=not self.training,
            pooled=pooled,
        )
