"""AllPairs: every x with every y of the batch."""

from typing import ClassVar, final

from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._batch_checks import check_batch_size, check_num_views
from lightning_mi.pairs._rows import AbstractRowPairing, Rows
from lightning_mi.scores.joint_columns import JointColumns


@final
class AllPairs(AbstractRowPairing):
    """Row i of x and row i of y are a joint pair; the N (N - 1) other combinations are marginal pairs.

    For InfoNCE a row is x_i against every y, including y_i. With a critic of log-densities q(y | x), which are
    normalized over y, a row is y_i against every x, and the candidates are the x.

    Args:
        gather: True, False or ``"ring"``, as in :class:`AbstractTiledPairing`.
        tile_bytes: The memory of a tile of scores, if the critic has tiles; see :meth:`Scores.from_columns`. By
            default a size that is fast on the device. ``math.inf`` stores all scores, as double backward needs.

    Raises:
        ValueError: A training batch has fewer than two samples, x and y differ in length, or the number of views is
            not two.

    Example:
        >>> import torch
        >>> from lightning_mi import critics
        >>> AllPairs()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2)).num_marginal
        12
    """

    num_views: ClassVar[int | None] = 2

    def arrange(self, critic: AbstractCritic, *views: Tensor) -> Rows:
        """Rows x (N, Dx) with candidates y (N, Dy)."""
        check_num_views(views, "x", "y", pairing="AllPairs")
        shard = self.shard(*views)
        check_batch_size(shard, self.training)
        x, y = views[::-1] if critic.is_log_density else views
        held = self.held_shard(shard)
        return Rows(x, held.gather(y), JointColumns.of_diagonal(x, held.start), shard, num_rows=shard.total)
