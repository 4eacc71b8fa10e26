"""The log-normalizer over many batches: what drifts, and what a regularizer holds."""

from typing import Any, final

from torch import Tensor

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.metrics.base import AbstractMomentsMetric
from lightning_mi.metrics.reading import read_log_normalizer
from lightning_mi.scores import Scores


@final
class LogNormalizer(AbstractMomentsMetric):
    r"""A bound's log-normalizer :math:`\ell`, pooled over the pairs of all batches and processes.

    Where :math:`\ell` is the log of a mean over marginal pairs (the Donsker-Varadhan family and every self-normalized
    bound) it is :math:`\log \frac{\sum K_b e^{\ell_b}}{\sum K_b}`. InfoNCE's is the mean of its rows', weighted by
    joint pairs as its rows are. ``ReleasedJS`` has a plain mean over marginal pairs in its place, pooled as such.

    Inputs of ``update``:
        - ``terms`` (:class:`BoundTerms`): what the bound read on a batch.
        - ``scores`` (:class:`Scores`): the batch; only its numbers of pairs are read.

    Args:
        bound: The bound that gives the terms. It is asked how its log-normalizer pools, and not kept.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` and ``forward`` give a scalar, nats, float64 (float32 on MPS); NaN before the first batch.

    Source: Choi and Lee 2022.

    Example:
        >>> import torch
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
        reading = read_log_normalizer(bound)
        super().__init__(reading.name, **kwargs)
        self._reading = reading

    def update(self, terms: BoundTerms, scores: Scores) -> None:
        """Take in one batch."""
        self._add(self._reading.moments(terms, scores, self.moments.dtype))

    def compute(self) -> Tensor:
        """The log-normalizer over all batches of all processes."""
        return self._reading.estimate(self.moments).value
