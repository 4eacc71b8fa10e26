"""Queue: earlier representations as further candidates of a pairing."""

import dataclasses
import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs._rows import AbstractRowPairing, Rows
from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_whole, describe


@final
class Queue(AbstractPairing):
    r"""A pairing with the candidates of earlier batches as further marginal pairs (negatives).

    Each training batch is scored against its own candidates and the queue, then its candidates (y; both views with
    ``TwoViews``) replace the oldest entries. Entries are detached: they give x a gradient, and get none. The entries
    are buffers, so they are in checkpoints. All ranks have the same queue: the candidates of all ranks enter it in rank
    order. The size need not be a multiple of the batch or of the number of ranks. The candidates of a batch do not
    enter it if one of them is NaN or infinite.

    **In the first batches** the queue holds fewer entries than its size, and only these are candidates. In the first
    batch the queue is empty: the wrapped pairing alone is scored, also with ``in_batch=False``.

    **In evaluation** the queue is neither read nor changed: the wrapped pairing alone is scored, with the ceiling of
    the batch. With ``in_evaluation`` the queue is read.

    **The estimate.** Entries come from earlier encoders, so the law of marginal pairs is p(x) times a mixture of
    earlier laws of y, not p(x) p(y). With a fixed encoder the two are equal, with one that moves slowly (a momentum
    encoder) they are close; with another one the estimate is biased in either direction. A row has Q more candidates,
    so the ceiling of InfoNCE rises from log N to log(N + Q); with ``in_batch=False`` it is log(1 + Q). If Q exceeds
    the number of training samples, a sample is among its own marginal pairs, and the estimate is too low.

    Over accumulated batches, a queue of k - 1 batches gives each of k batches the candidates of the others, without
    their gradient. For the gradient of the large batch use ``encoder_chunk_size`` of
    :class:`~lightning_mi.MIEstimationModule`.

    Source: He et al. 2020 (``in_batch=False``, with a momentum encoder for y); Wang et al. 2020 (without one).

    Args:
        pairing: ``AllPairs``, ``TwoViews``, ``LocalGlobal`` or ``TimeSteps``.
        size: Q, the number of entries, at least the number of candidates of a batch over all ranks.
        dim: The width of a candidate.
        in_batch: Candidates of the batch are marginal pairs too. If False, only the queue's entries are.
        in_evaluation: Read the queue in evaluation too. Its entries are of training samples.

    Attributes:
        entries: (Q, dim) the entries, in no particular order.
        num_pushed: A scalar, int64: the number of candidates that have entered the queue.

    Raises:
        TypeError: ``pairing`` is another one, or size or dim is not a whole number.
        ValueError: Size or dim is below 1, or the pairing does not have ``gather=True``. In use: the candidates have
            another width, or a batch has more candidates than the queue has entries.

    Example:
        >>> from lightning_mi import critics, pairs
        >>> pairing = pairs.Queue(pairs.AllPairs(), size=6, dim=2)
        >>> for _ in range(3):
        ...     scores = pairing(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2))
        ...     print(scores.num_candidates)
        4
        8
        10
    """

    entries: Tensor
    num_pushed: Tensor

    def __init__(
        self,
        pairing: AbstractRowPairing,
        size: int,
        dim: int,
        *,
        in_batch: bool = True,
        in_evaluation: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(pairing, AbstractRowPairing):
            raise TypeError(
                f"Got {describe('pairing', pairing)}: Queue extends a pairing in which each x has one joint pair and "
                "all candidates. Choose pairs.AllPairs(), TwoViews(), LocalGlobal() or TimeSteps()."
            )
        check_whole("size", size, 1)
        check_whole("dim", dim, 1)
        if pairing.gather is not True:
            raise ValueError(
                f"Got {type(pairing).__name__} with gather={pairing.gather!r}: the queue is the same on all ranks, so "
                "it holds the candidates of all ranks. Leave gather=True; with one rank it changes nothing."
            )
        self.pairing = pairing
        self.size = size
        self.in_batch = in_batch
        self.in_evaluation = in_evaluation
        self.register_buffer("entries", torch.zeros(size, dim))
        self.register_buffer("num_pushed", torch.zeros((), dtype=torch.int64))

    @property
    def num_views(self) -> int | None:  # type: ignore[override]  # of the wrapped pairing, so not of the class
        """The number of views of the wrapped pairing."""
        return self.pairing.num_views

    @property
    def mixes_views(self) -> bool:  # type: ignore[override]  # as above
        """Whether the wrapped pairing scores x against x."""
        return self.pairing.mixes_views

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of the wrapped pairing with the queue's entries as further candidates; views as it takes them."""
        rows = self.pairing.arrange(critic, *views)
        self._check(rows.y)
        reads = self.training or self.in_evaluation
        scores = self.pairing.score_rows(critic, self._extend(rows) if reads else rows)
        if self.training:
            self._push(rows.y.detach())
        return scores

    def prepare(self, data: object) -> None:
        """The wrapped pairing's hook at the start of a fit."""
        self.pairing.prepare(data)

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """That of the wrapped pairing: the value if earlier encoders equal the current one."""
        return self.pairing.true_value(data, bound)

    def max_value(self, data: object, bound: AbstractBound) -> float:
        """That of the wrapped pairing in evaluation; infinite if stale entries are read."""
        return math.inf if self.training or self.in_evaluation else self.pairing.max_value(data, bound)

    def _extend(self, rows: Rows) -> Rows:
        """The rows with the queue's entries as further candidates."""
        filled = min(int(self.num_pushed), self.size)
        if not filled:
            return rows
        columns = rows.columns if self.in_batch else _without_batch(rows.columns, len(rows.y))
        # A copy, so that backward does not see the entries that this batch replaces.
        y = torch.cat([rows.y, self.entries[:filled].to(rows.y)])
        return dataclasses.replace(rows, y=y, columns=columns)

    @torch.no_grad()
    def _push(self, y: Tensor) -> None:
        """Replace the oldest entries."""
        if not bool(y.isfinite().all()):
            return
        slots = (self.num_pushed + torch.arange(len(y), device=y.device)) % self.size
        self.entries[slots] = y.to(self.entries)
        self.num_pushed += len(y)

    def _check(self, y: Tensor) -> None:
        width = self.entries.shape[1]
        if y.shape[1:] != (width,):
            raise ValueError(
                f"Got candidates of shape {_form(y.shape)} for a queue of width {width}: entries have the shape of "
                f"candidates, (N, {width}). Pass dim=D for candidates of (N, D)."
            )
        if self.training and len(y) > self.size:
            raise ValueError(
                f"Got {len(y)} candidates of a batch, over all ranks, for a queue of size {self.size}: it holds "
                "earlier batches, so at least one. Raise the size, or use the pairing without a queue."
            )


def _without_batch(columns: JointColumns, num_candidates: int) -> JointColumns:
    """Columns of a batch with all but the joint pair excluded.

    Example:
        >>> _without_batch(JointColumns(torch.tensor([1, 0])), 3).excluded
        tensor([[0, 2],
                [1, 2]])
    """
    others = torch.arange(num_candidates - 1, device=columns.joint.device)
    return JointColumns(columns.joint, others + (others >= columns.joint.unsqueeze(1)).long())


def _form(shape: Sequence[int]) -> str:
    return f"(N, {', '.join(map(str, shape[1:]))})" if len(shape) > 1 else "(N,)"
