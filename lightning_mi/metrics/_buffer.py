"""Metrics of batches that are too small to be taken in one by one."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lightning_mi.bounds import BoundTerms
from lightning_mi.metrics._batches import Batches, Counts, Digest, digest
from lightning_mi.metrics.base import AbstractMomentsMetric
from lightning_mi.scores.scores import Scores


@final
class BufferedMetrics(MetricCollection):
    """Metrics of a bound's terms and scores that take in batches many at a time.

    A batch waits as a row of numbers, its scores forgotten, until there are ``size`` of them or somebody looks at a
    metric: ``compute``, ``items``, ``values`` and ``[]`` are always of all batches. Taken in one by one, each batch
    would cost as much as the step of a small critic.

    Args:
        metrics: By their names.
        prefix: Of their names.
        size: How many batches wait at most.

    Raises:
        TypeError: A metric is not of this package, and could not take in several batches at once.

    Example:
        >>> from lightning_mi.bounds import DV
        >>> from lightning_mi.metrics import MutualInformation
        >>> bound, metrics = DV(), BufferedMetrics({"mi": MutualInformation(DV(), "macro")}, prefix="train/")
        >>> for scale in (1.0, 3.0):
        ...     scores = Scores.from_matrix(scale * torch.eye(4))
        ...     metrics.update(terms=bound(scores), scores=scores)
        >>> metrics.compute()
        {'train/mi': tensor(2., dtype=torch.float64)}
    """

    def __init__(self, metrics: Mapping[str, Metric], prefix: str = "", size: int = 64) -> None:
        self._rows: list[Tensor] = []
        self._counts: list[Counts] = []
        self._size = size
        for name, metric in metrics.items():
            if not isinstance(metric, AbstractMomentsMetric):
                raise TypeError(
                    f"Got a {type(metric).__name__} as {name!r}: it cannot take in several batches at once, as this "
                    "package's metrics of terms and scores can. Update it at each step, in a collection of its own."
                )
        super().__init__(dict(metrics), prefix=prefix)

    def update(self, *, terms: BoundTerms, scores: Scores) -> None:  # type: ignore[override]  # its metrics are alike
        """Take in one batch."""
        self.append(digest(terms, scores))

    def append(self, batch: Digest) -> None:
        """The same, of a batch that has been digested."""
        self._rows.append(batch.numbers)
        self._counts.append(batch.counts)
        if len(self._rows) >= self._size:
            self.flush()

    @property
    def has_batches(self) -> bool:
        """Whether there was a batch since the last reset."""
        return bool(self._rows) or any(metric.update_count for metric in super().values())

    def flush(self) -> None:
        """Let the metrics take in what waits."""
        if self._rows:
            batches = Batches(torch.stack(self._rows), self._counts)
            self._forget()
            super().update(terms=batches.terms, scores=batches)

    def reset(self) -> None:
        """Forget all batches."""
        self._forget()
        super().reset()

    def items(self, keep_base: bool = False, copy_state: bool = True) -> Iterable[tuple[str, Metric]]:  # type: ignore[override]  # as its base does
        """The metrics with their names; ``compute`` comes by here too."""
        self.flush()
        return super().items(keep_base, copy_state)

    def values(self, copy_state: bool = True) -> Iterable[Metric]:  # type: ignore[override]  # as its base does
        """The metrics."""
        self.flush()
        return super().values(copy_state)

    def __getitem__(self, key: str, copy_state: bool = True) -> Metric:
        """One of the metrics."""
        self.flush()
        return super().__getitem__(key, copy_state)

    def snapshot(self) -> dict[str, Any]:
        """All that was taken in, waiting or not: plain data, and tensors that are never written to again."""
        metrics = {
            name: {"updates": metric.update_count} | {key: getattr(metric, key) for key in metric._defaults}
            for name, metric in self._modules.items()
        }
        rows = torch.stack(self._rows) if self._rows else None
        return {"metrics": metrics, "rows": rows, "counts": [tuple(counts) for counts in self._counts]}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what :meth:`snapshot` gave."""
        self._forget()
        for name, state in snapshot["metrics"].items():
            metric = self._modules[name]
            for key in metric._defaults:
                setattr(metric, key, state[key].to(metric.device))
            # At least 1: where all batches were taken back, NaN is what is meant, and not worth a warning.
            metric._update_count = max(state["updates"], 1)
            if snapshot["rows"] is not None and not self._rows:
                self._rows = list(snapshot["rows"].to(metric.device))
        self._counts = [Counts(*counts) for counts in snapshot["counts"]]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        self.flush()  # what waits is on the device that is left
        moved: nn.Module = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return moved

    def _forget(self) -> None:
        self._rows, self._counts = [], []
