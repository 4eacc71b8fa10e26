"""Buffered metric updates: each batch is stored as one row of numbers, without its scores, and added later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_mi.bounds import BoundTerms
from lightning_mi.scores.scores import Scores

_NUM_TERMS = len(BoundTerms._fields)
_POWERS = (1.0, 2.0)  # of exp(T), as EffectiveSampleFraction needs them


class PairCounts(NamedTuple):
    """Weight of joint and number of marginal pairs: over all ranks that share the means, and of this rank alone."""

    joint_weight: float
    num_marginal: int
    world_size: int
    local_joint_weight: float
    local_marginal: int


class Digest(NamedTuple):
    """The summary of one batch that metrics need: (7,) numbers, the terms first, and the numbers of pairs."""

    numbers: Tensor
    counts: PairCounts


@torch.no_grad()
def digest(terms: BoundTerms, scores: Scores) -> Digest:
    """Summarize one batch for :class:`BufferedMetrics`.

    Example:
        >>> digest(BoundTerms(*torch.ones(5)), Scores.from_matrix(torch.zeros(3, 3))).numbers
        tensor([1., 1., 1., 1., 1., 0., 0.])
    """
    local = scores.local()
    numbers = torch.stack([*terms, *(local.log_mean_exp(power=power) for power in _POWERS)])
    counts = PairCounts(
        scores.joint_weight, scores.num_marginal, scores.world_size, local.joint_weight, local.num_marginal
    )
    return Digest(numbers, counts)


@final
class Batches:
    """S batches in place of :class:`Scores`, with the attributes and reductions that metrics use.

    Args:
        numbers: (S, 7) the ``numbers`` of S :class:`Digest`.
        counts: The ``counts`` of S :class:`Digest`.

    Attributes:
        terms: The terms of a bound, (S,) each.
        joint_weight: As in :class:`Scores`, for each batch.
        num_marginal: As in :class:`Scores`, for each batch.
        world_size: As in :class:`Scores`, for each batch.

    Example:
        >>> numbers, counts = digest(BoundTerms(*torch.zeros(5)), Scores.from_matrix(torch.zeros(3, 3)))
        >>> Batches(torch.stack([numbers]), [counts]).num_marginal
        [6]
    """

    def __init__(self, numbers: Tensor, counts: Sequence[PairCounts]) -> None:
        self._numbers, self._counts = numbers, counts
        self.terms = BoundTerms(*numbers[:, :_NUM_TERMS].unbind(1))
        self.joint_weight = [c.joint_weight for c in counts]
        self.num_marginal = [c.num_marginal for c in counts]
        self.world_size = [c.world_size for c in counts]

    def local(self) -> Batches:
        """The same batches with the pairs of this rank alone."""
        local = [
            PairCounts(c.local_joint_weight, c.local_marginal, 1, c.local_joint_weight, c.local_marginal)
            for c in self._counts
        ]
        return Batches(self._numbers, local)

    def log_mean_exp(self, power: float = 1.0) -> Tensor:
        """(S,) log E_Q[exp(power * T)] over the marginal pairs of this rank, for a power of 1 or 2; nats."""
        return self._numbers[:, _NUM_TERMS + _POWERS.index(power)]


@runtime_checkable
class _BufferableMetric(Protocol):
    """A metric of :mod:`lightning_mi.metrics.base`."""

    moments: Tensor

    def update_batches(self, batches: Batches) -> None:
        """Add several batches."""


@final
class BufferedMetrics(nn.Module):
    """Metrics of a bound's terms and scores that add up to ``size`` batches at a time.

    Adding each batch by itself would cost as much as the step of a small critic. :meth:`items` and :meth:`compute` add
    the buffered batches first.

    Args:
        metrics: This package's metrics of terms and scores, by name.
        prefix: Prefix of the names.
        size: The maximum number of buffered batches.

    Raises:
        TypeError: A metric cannot add several batches at once.

    Example:
        >>> from lightning_mi.bounds import DV
        >>> from lightning_mi.metrics import MutualInformation
        >>> bound, metrics = DV(), BufferedMetrics({"mi": MutualInformation(DV(), "macro")}, prefix="train/")
        >>> for scale in (1.0, 3.0):
        ...     scores = Scores.from_matrix(scale * torch.eye(4))
        ...     metrics.append(digest(bound(scores), scores))
        >>> metrics.compute()
        {'train/mi': tensor(2., dtype=torch.float64)}
    """

    def __init__(self, metrics: Mapping[str, Metric], prefix: str = "", *, size: int = 64) -> None:
        super().__init__()
        for name, metric in metrics.items():
            if not isinstance(metric, _BufferableMetric):
                raise TypeError(
                    f"Got a {type(metric).__name__} as {name!r}: it cannot add several batches at once, as this "
                    "package's metrics of terms and scores can. Update it at each step, in a MetricCollection."
                )
        self._metrics = nn.ModuleDict(metrics)
        self._prefix = prefix
        self._size = size
        self._rows: list[Tensor] = []
        self._counts: list[PairCounts] = []

    def append(self, batch: Digest) -> None:
        """Add one batch."""
        self._rows.append(batch.numbers)
        self._counts.append(batch.counts)
        if len(self._rows) >= self._size:
            self._flush()

    @property
    def has_batches(self) -> bool:
        """Whether a batch was added since the last reset."""
        return bool(self._rows) or any(metric.update_called for metric in self._named().values())

    def items(self) -> Iterator[tuple[str, Metric]]:
        """The metrics over all batches, with prefixed names."""
        self._flush()
        return ((self._prefix + name, metric) for name, metric in self._named().items())

    def compute(self) -> dict[str, Tensor]:
        """The results over all batches, by prefixed name."""
        return {name: metric.compute() for name, metric in self.items()}

    def reset(self) -> None:
        """Clear all batches."""
        self._clear()
        for metric in self._named().values():
            metric.reset()

    def snapshot(self) -> dict[str, Any]:
        """The complete state, buffered batches included: plain data, and tensors that are never modified in place."""
        return {
            "moments": {name: metric.moments for name, metric in self._bufferable().items()},
            "rows": torch.stack(self._rows) if self._rows else None,
            "counts": [tuple(counts) for counts in self._counts],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Restore the result of :meth:`snapshot`. A metric that is missing in it starts without batches."""
        self.reset()
        moments = snapshot["moments"]
        for name, metric in self._bufferable().items():
            metric.moments = moments.get(name, metric.moments)
            # An update without a batch: torchmetrics warns about a metric that is computed before any update, but NaN
            # is the intended result if all batches were undone.
            metric.update_batches(Batches(metric.moments.new_empty(0, _NUM_TERMS + len(_POWERS)), []))
        if snapshot["rows"] is not None:
            self._rows = list(snapshot["rows"])
            self._counts = [PairCounts(*counts) for counts in snapshot["counts"]]

    def _named(self) -> dict[str, Metric]:
        return {name: metric for name, metric in self._metrics.items() if isinstance(metric, Metric)}

    def _bufferable(self) -> dict[str, _BufferableMetric]:
        return {name: metric for name, metric in self._metrics.items() if isinstance(metric, _BufferableMetric)}

    def _flush(self) -> None:
        if self._rows:
            metrics = self._bufferable()
            device = next(iter(metrics.values())).moments.device  # the module may have moved since a batch was added
            batches = Batches(torch.stack([row.to(device) for row in self._rows]), self._counts)
            self._clear()
            for metric in metrics.values():
                metric.update_batches(batches)

    def _clear(self) -> None:
        self._rows, self._counts = [], []
