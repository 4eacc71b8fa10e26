"""Derangement: marginal pairs from a shuffle without fixed points."""

from typing import ClassVar, final

from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs._shuffles import random_cycle
from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.scores import Scores


@final
class Derangement(AbstractPairing):
    """Row i of x and row i of y are a joint pair; N marginal pairs come from a shuffle of y without fixed points.

    The shuffle is one random cycle, so no marginal pair is a joint pair. It is cheaper than all pairs for a joint
    critic, and noisier. It has no rows, so InfoNCE cannot use it. Each rank shuffles its local samples, and means run
    over the pairs of all ranks.

    Args:
        gather: As in :class:`AbstractPairing`.

    Raises:
        ValueError: A training batch, or the shard of a rank, has one sample; x and y differ in length; or the number
            of views is not two.

    Example:
        >>> import torch
        >>> from lightning_mi import critics
        >>> Derangement()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2)).num_marginal
        4
    """

    num_views: ClassVar[int | None] = 2

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, Dx) with y (N, Dy), and with y shuffled."""
        check_num_views(views, "x", "y", pairing="Derangement")
        shard = self.shard(*views)
        check_batch_size(shard, self.training)
        if self.training and 1 in shard.counts:
            raise ValueError(
                f"Got shards of {', '.join(map(str, shard.counts))} samples on the ranks: Derangement shuffles the "
                "samples of each rank, so each has two or more, or none. Choose another batch size, or drop the last, "
                "smaller batch: DataLoader(..., drop_last=True)."
            )
        x, y = views
        shuffle = random_cycle(len(x), x.device)
        pooled = shard.pooled and GlobalCounts(shard.total, shard.total, shard.total, world_size=len(shard.counts))
        return Scores.from_samples(
            critic.paired(x, y),
            critic.paired(x, y[shuffle]) if len(x) > 1 else x.new_empty(0),
            y=y,
            marginal_columns=shuffle if len(x) > 1 else shuffle[:0],
            allow_no_marginal=not self.training,
            pooled=pooled,
        )
