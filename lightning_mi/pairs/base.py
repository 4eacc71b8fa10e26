"""Base classes of pairings."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal, final

from torch import Tensor, nn

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.exceptions import RingGatherError
from lightning_mi.pairs._batch_checks import ShardHeader, check_headers
from lightning_mi.pairs.known_law import known_mi
from lightning_mi.scores.batch_shard import BatchShard, shard_of
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.ring import RingTiles
from lightning_mi.scores.scores import Scores
from lightning_mi.scores.tiles import AbstractTiles, check_tile_bytes
from lightning_mi.utilities.distributed import all_gather_ints, raise_any, raise_on_all_ranks, world_size
from lightning_mi.utilities.labels import check_labels

Gather = bool | Literal["ring"]


class AbstractPairing(nn.Module, ABC):
    """Turns the representations of a batch into scores of joint pairs (positives) and marginal pairs (negatives).

    With several ranks, each holds a shard of the batch. In training mode pairs run over the samples of all ranks, and
    all ranks get the same reductions of the scores; shards may differ in length. In evaluation mode each rank pairs its
    local samples.

    Args:
        gather: In training, pair the samples of all ranks; if False, each rank pairs its local samples.

    Raises:
        RingGatherError: ``gather`` is ``"ring"``, and the pairing has no tiles.
        ValueError: ``gather`` is another word.

    Attributes:
        has_ring: The pairing can work with ``gather="ring"``.
        num_views: The number of views, the first entries of a batch, that the encoders map to representations; None
            for all entries.
        takes_labels: ``forward`` takes the labels of the samples, (N,), after the representations.
        mixes_views: x is also scored against x, as a candidate. So both views need the same encoder.
    """

    num_views: ClassVar[int | None] = None
    takes_labels: ClassVar[bool] = False
    mixes_views: ClassVar[bool] = False
    has_ring: ClassVar[bool] = False

    def __init__(self, *, gather: Gather = True) -> None:
        super().__init__()
        if gather not in (True, False, "ring"):
            raise ValueError(
                f"Got gather={gather!r}: it is True (all-gather the candidates), False (pairs within each rank) or "
                "'ring' (candidates pass from rank to rank)."
            )
        if gather == "ring" and not self.has_ring:
            raise RingGatherError(
                f"Got gather='ring' for {type(self).__name__}: a ring needs tiles of scores, with one joint pair in "
                "each row, as in AllPairs and TwoViews. Use gather=True."
            )
        self.gather = gather

    @abstractmethod
    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Score the pairs of a batch.

        Args:
            critic: T(x, y).
            views: The representations, x and y first; then the labels, if the pairing takes them.
        """

    def prepare(self, data: object) -> None:
        """Hook at the start of a fit, for pairings that read properties of the data. By default it does nothing.

        Args:
            data: The trainer's data module, or None.
        """
        del data

    @final
    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Context manager: restores the buffers afterwards, so that a batch can be scored without counting its labels.

        Example:
            >>> import torch
            >>> from lightning_mi import critics, pairs
            >>> pairing = pairs.EnumeratedLabels(2)
            >>> with pairing.uncounted():
            ...     scores = pairing(critics.LabelCritic(), torch.eye(2), torch.arange(2))
            >>> pairing.label_counts
            tensor([0, 0])
        """
        saved = [buffer.clone() for buffer in self.buffers()]
        try:
            yield
        finally:
            for buffer, value in zip(self.buffers(), saved, strict=True):
                buffer.copy_(value)

    @final
    @contextmanager
    def all_gathered(self) -> Iterator[None]:
        """Context manager: candidates are all-gathered, not passed round a ring."""
        gather, self.gather = self.gather, bool(self.gather)
        try:
            yield
        finally:
            self.gather = gather

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """The value of a bound on these pairs with exact expectations and the optimal critic, nats; None if unknown.

        By default I(x; y) of the data module: joint pairs have the law p(x, y), marginal pairs p(x) p(y). Override it
        if a pairing has other pairs.

        Args:
            data: The data module; ``lightning_mi/utilities/protocols.py`` lists its optional methods.
            bound: The value may depend on whether the bound is normalized by rows (``normalized_by_row``).
        """
        del bound
        return known_mi(data)

    def max_value(self, data: object, bound: AbstractBound) -> float:
        """The maximum of a lower bound with exact expectations, nats; infinite if unknown.

        By default the true value, since encoders can only lose information.
        """
        truth = self.true_value(data, bound)
        return math.inf if truth is None else truth

    def labeled_shard(self, x: Tensor, labels: Tensor, *others: Tensor) -> tuple[BatchShard, Tensor]:
        """:meth:`shard` of x and other views, and their checked labels; if the check fails on one rank, raise on all.

        Raises:
            TypeError: The labels are not integers.
            ValueError: The number of labels differs from that of samples, or a label is negative or invalid for this
                pairing.
        """
        problem = None
        try:
            labels = check_labels(labels, len(x), type(self).__name__, getattr(self, "num_classes", None))
            labels = self.check_labels(labels.to(x.device))
        except (TypeError, ValueError) as error:
            problem = error
        if self.training and not self.gather:  # no all-gather of shapes, but DDP's all-reduce of gradients would block
            raise_on_all_ranks(problem, x.device)
        return self.shard(x, *others, problem=problem), labels

    def check_labels(self, labels: Tensor) -> Tensor:
        """The labels, (N,) non-negative integers; override it to raise a ValueError for labels that are invalid."""
        return labels

    def shard(self, *views: Tensor, problem: Exception | None = None) -> BatchShard:
        """The position of this rank's rows in the batch of all ranks.

        A failed check raises on every rank, so that no rank blocks in a later collective.

        Args:
            views: (N, ...) each. The second is as long as the first, the fourth as the third.
            problem: An error of this rank, to raise on all ranks.

        Raises:
            Exception: The problem; a ValueError on the other ranks.
            ValueError: Views of one pair differ in length, or the views of ranks differ in width or dtype.
        """
        return self.shards(*views, problem=problem)[0]

    def shards(self, *views: Tensor, problem: Exception | None = None) -> list[BatchShard]:
        """:meth:`shard` of each view; views of different pairs may differ in length."""
        ranks = [ShardHeader.of(views, problem)]
        if self.gather and self.training and world_size() > 1:
            gathered = all_gather_ints(ranks[0].to_ints(), views[0].device)
            ranks = [ShardHeader.from_ints(ints) for ints in gathered]
        raise_any(problem, [(header.has_problem,) for header in ranks])
        check_headers(ranks)
        return [shard_of(rows) for rows in zip(*(header.rows for header in ranks), strict=True)]


class AbstractTiledPairing(AbstractPairing):
    """A pairing of every x with every candidate, with one joint pair for each x.

    With ``gather="ring"`` no rank stores the candidates of all ranks. Each stores two blocks, its own and one that
    passes round the ring of ranks; gradients of the candidates come back to their rank. Results are those of
    ``gather=True`` up to rounding. The critic must have tiles. With one rank there is one block, and no difference.

    Args:
        gather: As in :class:`AbstractPairing`, or ``"ring"``.
        tile_bytes: The memory of a tile of scores, if the critic has tiles; see :meth:`Scores.from_columns`. By
            default a size that is fast on the device. ``math.inf`` stores all scores, as double backward needs.
    """

    has_ring: ClassVar[bool] = True

    def __init__(self, *, gather: Gather = True, tile_bytes: float | None = None) -> None:
        super().__init__(gather=gather)
        check_tile_bytes(tile_bytes)
        self.tile_bytes = tile_bytes

    def held_shard(self, shard: BatchShard) -> BatchShard:
        """The samples whose candidates this rank stores, as a shard: those of all ranks, or in a ring its own.

        Args:
            shard: The position of this rank's samples in the batch of all ranks.
        """
        return BatchShard((shard.counts[shard.rank],)) if self.gather == "ring" else shard

    def score_all(
        self,
        critic: AbstractCritic,
        x: Tensor,
        y: Tensor,
        columns: JointColumns,
        shard: BatchShard,
        num_rows: int | None = None,
    ) -> Scores:
        """Scores of x (N, Dx) with all candidates y (M, Dy), in tiles if the critic has them.

        Args:
            critic: T(x, y); of log-densities, T(y, x), because they are compared over the variable that is given.
            x: The samples of this rank.
            y: The candidates that this rank stores, (N, Dy) in a ring.
            columns: For each x, the candidate of its joint pair and the candidates that are excluded, if any.
            shard: The position of x in the rows of all ranks; in a ring, they are as many as the candidates.
            num_rows: The number of x of all ranks; by default that of the candidates.

        Raises:
            RingGatherError: The critic has no tiles, or tiles that cannot pass round a ring.
        """
        if critic.is_log_density:
            tiles = critic.tiles(y, x)
            tiles = None if tiles is None else tiles.transpose()
        else:
            tiles = critic.tiles(x, y)
        ring = self.gather == "ring" and shard.pooled
        scores: Tensor | AbstractTiles | RingTiles
        if ring:
            if tiles is None:
                raise RingGatherError(
                    f"Got gather='ring' with {type(critic).__name__}, which has no tiles: a ring computes scores of "
                    "some candidates at a time. Use a critic with tiles, such as SeparableCritic, or gather=True."
                )
            scores = RingTiles(tiles, shard)
        elif tiles is not None:
            scores = tiles
        else:
            scores = critic.pairwise(y, x).T if critic.is_log_density else critic.pairwise(x, y)
        # All rows have the same number of pairs.
        num_candidates = shard.total if ring else len(y)
        num_rows, in_row = num_candidates if num_rows is None else num_rows, columns.row_count(num_candidates)
        pooled = shard.pooled and GlobalCounts(num_rows, num_rows * (in_row - 1), num_rows, in_row, len(shard.counts))
        return Scores.from_columns(scores, columns, y=y, pooled=pooled, tile_bytes=self.tile_bytes)
