"""How many marginal pairs a mean of exponentials really rests on."""

from typing import Any, final

from torch import Tensor

from lightning_mi.metrics._batches import Batches
from lightning_mi.metrics.base import AbstractMomentsMetric
from lightning_mi.metrics.functional import weight_moments, weight_share
from lightning_mi.scores.scores import Scores


@final
class EffectiveSampleFraction(AbstractMomentsMetric):
    r"""The share of marginal pairs that carry :math:`E_Q[e^T]`: :math:`(\sum w)^2 / \sum w^2 / K` with :math:`w = e^T`.

    The sums run over the K marginal pairs of all batches and processes. 1 means that all pairs count equally, 1 / K
    that a single pair carries the marginal term, whose variance is then beyond what any standard error shows.
    Adding a constant to all scores changes nothing. Scores of size s in float32 are rounded by about s / 10^7, and the
    share by a few times that.

    Inputs of ``update``:
        - ``scores`` (:class:`Scores`): a batch.

    Args:
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` and ``forward`` give a scalar in (0, 1], float64 (float32 on MPS); NaN before the first batch.

    Source: Kong 1992; Owen 2013, chapter 9.3.

    Example:
        >>> import torch
        >>> metric = EffectiveSampleFraction()
        >>> metric.update(Scores.from_matrix(torch.zeros(4, 4)))
        >>> metric.update(Scores.from_matrix(torch.full((4, 4), -99.0)))  # pairs of no weight
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better: bool = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("weight", **kwargs)

    def update(self, scores: Scores | Batches) -> None:
        """Take in one batch, or several at once."""
        self._add(weight_moments(scores, self.moments.dtype))

    def compute(self) -> Tensor:
        """The share over all batches of all processes."""
        return weight_share(self.moments)
