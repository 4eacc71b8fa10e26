"""The standard error of mutual information as a metric of its own, so that it can be logged beside the value."""

from typing import Any, final

from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.metrics.base import AbstractReadingMetric
from lightning_mi.metrics.readout import Average, read_mutual_information


@final
class StandardError(AbstractReadingMetric):
    r"""How far chance may have moved what :class:`~lightning_mi.metrics.MutualInformation` reads from the same batches.

    What its ``return_standard_error`` gives beside the value, as a scalar. In a :class:`torchmetrics.MetricCollection`
    both share one state, so it costs nothing more in a step.

    Inputs of ``update``:
        - ``terms`` (:class:`~lightning_mi.BoundTerms`): what the bound read on a batch.
        - ``scores`` (:class:`~lightning_mi.Scores`): the batch; only its numbers of pairs are read.

    Args:
        bound: The bound that gives the terms. It is asked how its terms pool, and not kept.
        average: ``"micro"``, ``"macro"`` or ``"plug-in"``.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` and ``forward`` give a scalar, nats, float64 (float32 on MPS); NaN with fewer than two batches.

    Raises:
        ValueError: The average is none of the three.

    Source: The delta method; see :func:`~lightning_mi.metrics.moments.read_moments`.

    Example:
        >>> import torch
        >>> from lightning_mi import Scores
        >>> from lightning_mi.bounds import DV
        >>> bound, metric = DV(), StandardError(DV(), "macro")
        >>> for value in (1.0, 3.0):
        ...     scores = Scores.from_matrix(value * torch.eye(4))
        ...     metric.update(bound(scores), scores)
        >>> metric.compute()  # the standard deviation of 1 and 3, over the square root of 2
        tensor(1., dtype=torch.float64)
    """

    higher_is_better: bool = False

    def __init__(self, bound: AbstractBound, average: Average = "micro", **kwargs: Any) -> None:
        super().__init__(read_mutual_information(bound, average), **kwargs)

    def compute(self) -> Tensor:
        """The standard error over all batches of all processes."""
        return self._reading.estimate(self.moments).standard_error
