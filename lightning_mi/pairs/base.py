"""What every pairing has in common, and the checks of what it is given."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, final

from torch import Tensor, nn

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs.known_law import known_mi
from lightning_mi.scores.batch_shard import BatchShard, shard_of
from lightning_mi.scores.global_counts import GlobalCounts
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.scores import Scores
from lightning_mi.scores.tiles import check_tile_bytes
from lightning_mi.utilities.distributed import all_gather_ints, raise_any, raise_on_all_ranks, world_size
from lightning_mi.utilities.labels import check_labels
from lightning_mi.utilities.view_checks import check_tensors


class AbstractPairing(nn.Module, ABC):
    """Turns the representations of a batch into scores of joint and marginal pairs.

    Where several processes train together, each holds a share of a batch. In training mode the pairs are those of the
    whole batch, and all processes read the same from the scores; the shares may differ in length. In evaluation mode
    each process pairs its own samples.

    Args:
        gather: Whether pairs run over the samples of all processes in training; otherwise each pairs its own.

    Attributes:
        num_views: How many views of a batch, its first ones, the encoders turn into representations; None for all.
        takes_labels: The labels of the samples, (N,), follow the representations.
        mixes_views: x is scored against x as well, as if it were a y. So both need one encoder.
    """

    num_views: ClassVar[int | None] = None
    takes_labels: ClassVar[bool] = False
    mixes_views: ClassVar[bool] = False

    def __init__(self, gather: bool = True) -> None:
        super().__init__()
        self.gather = gather

    @abstractmethod
    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Score the batch.

        Args:
            critic: Gives T(x, y).
            views: The representations, x and y first; then the labels, if the pairing takes them.
        """

    def prepare(self, data: object) -> None:
        """Take what the pairing needs to know of the data, at the start of a fit; nothing by default.

        Args:
            data: The trainer's data module, or None.
        """
        del data

    @final
    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Score a batch without counting it: the buffers are put back afterwards.

        Example:
            >>> import torch
            >>> from lightning_mi import critics, pairs
            >>> pairing = pairs.EnumeratedLabels(2)
            >>> with pairing.uncounted():
            ...     scores = pairing(critics.LabelCritic(), torch.eye(2), torch.arange(2))
            >>> pairing.label_counts
            tensor([0, 0])
        """
        before = [buffer.clone() for buffer in self.buffers()]
        try:
            yield
        finally:
            for buffer, old in zip(self.buffers(), before, strict=True):
                buffer.copy_(old)

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """What the bound estimates on these pairs, nats: its value with exact expectations and the optimal critic.

        By default I(x; y), as the data module knows it: joint pairs are drawn from p(x, y), marginal pairs from
        p(x) p(y). Override it where a pairing draws other pairs.

        Args:
            data: The data module; see ``lightning_mi/pairs/known_law.py`` for what it may state.
            bound: What is estimated may depend on whether it normalizes each row by itself (``capped_at_log_n``).

        Returns:
            None where it is not known.
        """
        del bound
        return known_mi(data)

    def max_value(self, data: object, bound: AbstractBound) -> float:
        """What the value of a lower bound cannot exceed with exact expectations, nats; infinite where nothing is known.

        The true value by default: an encoder can only lose information.
        """
        truth = self.true_value(data, bound)
        return math.inf if truth is None else truth

    def labeled_share(self, x: Tensor, labels: Tensor) -> tuple[BatchShard, Tensor]:
        """:meth:`share` of samples, and their labels; those that a pairing cannot take end all processes.

        Raises:
            TypeError: The labels are not integers.
            ValueError: There is not one for each sample, one is negative, or the pairing refuses one.
        """
        problem = None
        try:
            labels = check_labels(labels, len(x), type(self).__name__, getattr(self, "num_classes", None))
            labels = self.check_labels(labels.to(x.device))
        except (TypeError, ValueError) as found:
            problem = found
        if self.training and not self.gather:  # the shares are not told of, but their gradients are averaged
            raise_on_all_ranks(problem, x.device)
        return self.share(x, problem=problem), labels

    def check_labels(self, labels: Tensor) -> Tensor:
        """The labels, (N,) integers of at least 0, unless the pairing rejects one with a ValueError: override it to."""
        return labels

    def share(self, *views: Tensor, problem: Exception | None = None) -> BatchShard:
        """Which rows of the batch the views hold: of this process's, or of all processes' where pairs run over those.

        What is checked passes or fails on every process, so that none waits for one that has failed.

        Args:
            views: (N, ...) each. The second is as long as the first, the fourth as the third.
            problem: What is wrong with this process's share, where its pairing knows; all processes then raise.

        Raises:
            Exception: The problem.
            ValueError: Views that belong together differ in length, or processes have views of another width.
        """
        return self.shares(*views, problem=problem)[0]

    def shares(self, *views: Tensor, problem: Exception | None = None) -> list[BatchShard]:
        """The same for each of the views, which need not be equally long."""
        own = [problem is not None] + [number for view in views for number in (len(view), math.prod(view.shape[1:]))]
        everywhere = self.gather and self.training and world_size() > 1
        sizes = all_gather_ints(own, views[0].device) if everywhere else [tuple(own)]
        raise_any(problem, sizes)
        sizes = [tuple(size) for _, *size in sizes]
        for process, size in enumerate(sizes):
            where = f" on process {process}" if len(sizes) > 1 else ""
            for x, y, kind, name in zip(size[::4], size[2::4], ("joint", "marginal"), ("", "marginal "), strict=False):
                if x != y:
                    raise ValueError(
                        f"Got {x} {name}x and {y} {name}y{where}: row i of both is one {kind} pair, so they are "
                        "equally long."
                    )
            if size[1::2] != sizes[0][1::2]:
                raise ValueError(
                    f"Got views of {list(size[1::2])} numbers a row{where} and of {list(sizes[0][1::2])} on process 0: "
                    "samples of all processes are paired, so they are alike."
                )
        return [shard_of(lengths) for lengths in zip(*(size[::2] for size in sizes), strict=True)]


class AbstractTiledPairing(AbstractPairing):
    """A pairing of every x with every candidate, with one joint pair for each x.

    Args:
        gather: As in :class:`AbstractPairing`.
        tile_bytes: The memory of a tile of scores, where the critic has tiles; see :meth:`Scores.from_columns`. By
            default what is fast on the device; ``math.inf`` keeps all scores, as a gradient of a gradient needs it.
    """

    def __init__(self, gather: bool = True, tile_bytes: float | None = None) -> None:
        super().__init__(gather)
        check_tile_bytes(tile_bytes)
        self.tile_bytes = tile_bytes

    def score_all(
        self, critic: AbstractCritic, x: Tensor, y: Tensor, columns: JointColumns, share: BatchShard
    ) -> Scores:
        """Scores of x (N, Dx) with all candidates y (M, Dy), in tiles where the critic has any.

        Args:
            critic: Gives T(x, y).
            x: Of this process.
            y: The candidates.
            columns: Which of them makes a joint pair with each x, and which makes none.
            share: Whether those of other processes are among them.
        """
        tiles = critic.tiles(x, y)
        scores = critic.pairwise(x, y) if tiles is None else tiles
        # All processes together have a row for each candidate, and all rows are alike.
        num_rows, in_row = len(y), columns.row_count(len(y))
        pooled = share.pooled and GlobalCounts(num_rows, num_rows * (in_row - 1), num_rows, in_row, len(share.counts))
        return Scores.from_columns(scores, columns, y=y, pooled=pooled, tile_bytes=self.tile_bytes)


def check_count(views: tuple[Tensor, ...], *names: str, pairing: str) -> None:
    """Check that there are as many views as names, and that each, except labels, is a tensor with rows.

    Raises:
        TypeError: A view is not a tensor.
        ValueError: There are more or fewer, or one has no dimension.
    """
    if len(views) != len(names):
        raise ValueError(
            f"Got {len(views)} view{'s' * (len(views) != 1)} of the batch: {pairing} takes {len(names)}, "
            f"{', '.join(names)}. Choose another pairing, or give it these (in a module, `unpack_batch` returns them)."
        )
    check_tensors({name: view for name, view in zip(names, views, strict=True) if name != "labels"})


def check_two_or_more(share: BatchShard, training: bool) -> None:
    """Raise a ValueError unless a training batch holds two or more samples.

    In evaluation the last batch may hold one: it has its joint pair and no marginal pair.
    """
    if training and share.total < 2:
        raise ValueError(
            f"Got a batch of {share.total}: marginal pairs combine different samples, so a batch holds two or more. "
            "Raise the batch size, or drop the last, smaller batch: DataLoader(..., drop_last=True)."
        )
