"""TotalCorrelation: marginal pairs whose columns are all shuffled, for the dependence of several variables."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs._shuffles import random_cycle
from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.scores import Scores


@final
class TotalCorrelation(AbstractPairing):
    r"""Row i of x and row i of y are a joint pair; a marginal pair has each of their columns from another sample.

    The variables are all columns of x and of y. The divergence of the joint law from the product of the laws of all
    columns is the total correlation

    .. math:: \mathrm{TC}(v_1, \dots, v_D) = \sum_d H(v_d) - H(v_1, \dots, v_D),

    which is 0 if and only if all are independent. For two columns it is their mutual information. A module of one
    representation z passes ``z[:, :1]`` and ``z[:, 1:]``; how columns are divided between x and y changes nothing but
    the critic's form.

    Each column has a random cycle of its own, so it comes from another sample than in the joint pair, and two columns
    come from one sample by chance alone. It has no rows, so InfoNCE cannot use it. Each rank shuffles its local
    samples, and means run over the pairs of all ranks.

    Args:
        gather: As in :class:`AbstractPairing`.

    Raises:
        ValueError: A training batch, or the shard of a rank, has one sample; or x and y differ in length or are not
            (N, D).

    Source: Watanabe 1960.

    Example:
        >>> from lightning_mi import critics
        >>> z = torch.randn(8, 3)
        >>> TotalCorrelation()(critics.SeparableCritic(1, 2), z[:, :1], z[:, 1:]).num_marginal
        8
    """

    num_views: ClassVar[int | None] = 2

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, Dx) with y (N, Dy), and with all columns shuffled."""
        check_num_views(views, "x", "y", pairing="TotalCorrelation")
        problem = None
        if any(view.ndim != 2 for view in views):
            shapes = " and ".join(str(tuple(view.shape)) for view in views)
            problem = ValueError(f"Got views of shapes {shapes}: the variables are columns, so both must be (N, D).")
        shard = self.shard(*views, problem=problem)
        check_batch_size(shard, self.training)
        if self.training and 1 in shard.counts:
            raise ValueError(
                f"Got shards of {', '.join(map(str, shard.counts))} samples on the ranks: TotalCorrelation shuffles "
                "the samples of each rank, so each has two or more, or none. Choose another batch size, or drop "
                "the last, smaller batch: DataLoader(..., drop_last=True)."
            )
        x, y = views
        shuffled = [self._shuffle(view) if len(x) > 1 else view[:0] for view in views]
        pooled = shard.pooled and GlobalCounts(shard.total, shard.total, shard.total, world_size=len(shard.counts))
        return Scores.from_samples(
            critic.paired(x, y),
            critic.paired(*shuffled) if len(x) > 1 else x.new_empty(0),
            allow_no_marginal=not self.training,
            pooled=pooled,
        )

    def true_value(self, data: object, bound: object) -> float | None:
        """Unknown: the data modules with known MI state no total correlation."""
        del data, bound
        return None

    @staticmethod
    def _shuffle(view: Tensor) -> Tensor:
        """(N, D) with each column in another order."""
        rows = torch.stack([random_cycle(len(view), view.device) for _ in range(view.shape[1])], dim=1)
        return view.gather(0, rows)
