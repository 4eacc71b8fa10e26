"""Pairings whose batch is a list of rows and a list of candidates, to which a queue can append."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs.base import AbstractTiledPairing
from lightning_mi.scores.batch_shard import BatchShard
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.scores import Scores


@final
@dataclass(frozen=True)
class Rows:
    """The rows of this rank, the candidates, and the joint pair of each row.

    Attributes:
        x: (R, Dx) one sample for each row.
        y: (C, Dy) the candidates, of all ranks.
        columns: The candidate of each row's joint pair, and the candidates that are excluded from the row.
        shard: The position of this rank's samples in the batch of all ranks.
        num_rows: The number of rows of all ranks.
    """

    x: Tensor
    y: Tensor
    columns: JointColumns
    shard: BatchShard
    num_rows: int


class AbstractRowPairing(AbstractTiledPairing):
    """A pairing that arranges a batch in rows; :class:`Queue` can append candidates to them."""

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of every row with every candidate; views and errors as in :meth:`arrange`."""
        return self.score_rows(critic, self.arrange(critic, *views))

    @abstractmethod
    def arrange(self, critic: AbstractCritic, *views: Tensor) -> Rows:
        """Arrange a batch in rows and candidates; every rank must call it.

        Args:
            critic: Decides whether x or y are the candidates, if it is one of log-densities.
            views: The representations.
        """

    @final
    def score_rows(self, critic: AbstractCritic, rows: Rows) -> Scores:
        """Scores of rows and candidates, in tiles if the critic has them."""
        return self.score_all(critic, rows.x, rows.y, rows.columns, rows.shard, rows.num_rows)
