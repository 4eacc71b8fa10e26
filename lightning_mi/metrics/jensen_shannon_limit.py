"""JensenShannonLimit: a lower limit of the mutual information with a low variance, from bounded means."""

from typing import Any, final

from torch import Tensor

from lightning_mi.metrics.base import AbstractMomentsMetric
from lightning_mi.metrics.functional import limit_from_moments, limit_moments
from lightning_mi.scores.scores import Scores


@final
class JensenShannonLimit(AbstractMomentsMetric):
    r"""The smallest mutual information that the critic's classification of joint and marginal pairs allows.

    The objective of :class:`~lightning_mi.bounds.JS` is averaged over the pairs of all batches and ranks, then
    converted once by :func:`~lightning_mi.bounds.jensen_shannon_limit`. Its terms are bounded for marginal pairs, so
    it has no heavy tail. It is a lower limit for every critic, tightest for one that is trained by JS or NCE, and loose
    at high MI: read it beside an estimate, not in place of one. Use held-out pairs, and many: a critic that separates
    all pairs of a small sample has an objective near 0, where the limit is steep.

    Inputs of ``update``:
        - ``scores`` (:class:`Scores`): a batch.

    Args:
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` and ``forward`` return a scalar, nats, float64 (float32 on MPS); NaN before the first batch.

    Source: Dorent et al. 2025.

    Example:
        >>> import torch
        >>> metric = JensenShannonLimit()
        >>> metric.update(Scores.from_matrix(2 * torch.eye(4) - 1))
        >>> metric.compute()
        tensor(1.3838, dtype=torch.float64)
    """

    higher_is_better: bool = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("jensen_shannon", **kwargs)

    def update(self, scores: Scores) -> None:
        """Add one batch."""
        self._add(limit_moments(scores, self.moments.dtype))

    def compute(self) -> Tensor:
        """The limit over all batches of all ranks."""
        return limit_from_moments(self.moments).value
