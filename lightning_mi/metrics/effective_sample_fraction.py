"""EffectiveSampleFraction: effective sample size of the mean of exponentials, divided by the number of pairs."""

from typing import Any, final

from torch import Tensor

from lightning_mi.metrics._buffer import Batches
from lightning_mi.metrics.base import AbstractMomentsMetric
from lightning_mi.metrics.functional import fraction_from_moments, fraction_moments
from lightning_mi.scores.scores import Scores


@final
class EffectiveSampleFraction(AbstractMomentsMetric):
    r"""The effective sample size of :math:`E_Q[e^T]`, divided by the number of marginal pairs.

    .. math:: \frac{(\sum w)^2}{K \sum w^2}, \quad w = e^T

    The sums run over the K marginal pairs of all batches and ranks. 1 means that all pairs have the same weight. 1 / K
    means that a single pair determines the marginal term: its variance is then larger than any standard error shows. A
    constant added to all scores does not change it. Scores of size s in float32 have rounding errors of about s / 10^7;
    the relative error of the fraction is a few times larger.

    Inputs of ``update``:
        - ``scores`` (:class:`Scores`): a batch.

    Args:
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` and ``forward`` return a scalar in (0, 1], float64 (float32 on MPS); NaN before the first batch.

    Source: Kong 1992; Owen 2013, section 9.3.

    Example:
        >>> import torch
        >>> metric = EffectiveSampleFraction()
        >>> metric.update(Scores.from_matrix(torch.zeros(4, 4)))
        >>> metric.update(Scores.from_matrix(torch.full((4, 4), -99.0)))  # pairs of weight 0
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better: bool = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("weight", **kwargs)

    def update(self, scores: Scores | Batches) -> None:
        """Add one batch."""
        self._add(fraction_moments(scores, self.moments.dtype))

    def update_batches(self, batches: Batches) -> None:
        """Update with several batches at once."""
        self.update(batches)

    def compute(self) -> Tensor:
        """The fraction over all batches of all ranks."""
        return fraction_from_moments(self.moments)
