"""The log-normalizer over many batches: what drifts, and what a regularizer holds."""

from typing import Any, final

from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.metrics.base import AbstractReadingMetric
from lightning_mi.metrics.readout import read_log_normalizer


@final
class LogNormalizer(AbstractReadingMetric):
    r"""A bound's log-normalizer :math:`\ell`, pooled over the pairs of all batches and processes.

    Where :math:`\ell` is the log of a mean over marginal pairs (the Donsker-Varadhan family and every self-normalized
    bound) it is :math:`\log \frac{\sum K_b e^{\ell_b}}{\sum K_b}`. InfoNCE's is the mean of its rows', weighted by
    joint pairs as its rows are. ``ReleasedJS`` has a plain mean over marginal pairs in its place, pooled as such.

    Inputs of ``update``:
        - ``terms`` (:class:`~lightning_mi.BoundTerms`): what the bound read on a batch.
        - ``scores`` (:class:`~lightning_mi.Scores`): the batch; only its numbers of pairs are read.

    Args:
        bound: The bound that gives the terms. It is asked how its log-normalizer pools, and not kept.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` and ``forward`` give a scalar, nats, float64 (float32 on MPS); NaN before the first batch.

    Source: Choi and Lee 2022.

    Example:
        >>> import torch
        >>> from lightning_mi import Scores
        >>> from lightning_mi.bounds import DV
        >>> bound, metric = DV(), LogNormalizer(DV())
        >>> for score in (0.0, 2.0):
        ...     scores = Scores.from_matrix(torch.full((4, 4), score))
        ...     metric.update(bound(scores), scores)
        >>> metric.compute()  # log((1 + e^2) / 2)
        tensor(1.4338, dtype=torch.float64)
    """

    higher_is_better: bool | None = None

    def __init__(self, bound: AbstractBound, **kwargs: Any) -> None:
        super().__init__(read_log_normalizer(bound), **kwargs)

    def compute(self) -> Tensor:
        """The log-normalizer over all batches of all processes."""
        return self._reading.estimate(self.moments).value
