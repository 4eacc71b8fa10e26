"""LogNormalizer: a bound's log-normalizer over many batches."""

from typing import Any, final

from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.metrics.base import AbstractReadoutMetric
from lightning_mi.metrics.readout import log_normalizer_readout


@final
class LogNormalizer(AbstractReadoutMetric):
    r"""A bound's log-normalizer :math:`\ell`, pooled over the pairs of all batches and ranks.

    If :math:`\ell` is the log of a mean over marginal pairs (the Donsker-Varadhan family and every self-normalized
    bound), the result is :math:`\log \frac{\sum K_b e^{\ell_b}}{\sum K_b}`, with :math:`K_b` the number of marginal
    pairs of batch b. The log-normalizer of InfoNCE is the mean over its rows, weighted by their joint pairs. That of
    ``ReleasedJS`` is a mean over marginal pairs.

    Inputs of ``update``:
        - ``terms`` (:class:`~lightning_mi.BoundTerms`): the result of the bound on a batch.
        - ``scores`` (:class:`~lightning_mi.Scores`): the batch; only its numbers of pairs are used.

    Args:
        bound: The bound of the terms. Only its class attributes are used.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` and ``forward`` return a scalar, nats, float64 (float32 on MPS); NaN before the first batch.

    Raises:
        TypeError: ``bound`` is not a bound.

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
        super().__init__(log_normalizer_readout(bound), **kwargs)

    def compute(self) -> Tensor:
        """The log-normalizer over all batches of all ranks."""
        return self._readout.estimate(self.moments).value
