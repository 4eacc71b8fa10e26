"""StandardError: standard error of the mutual-information estimate, as a metric."""

from typing import Any, final

from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.metrics.base import AbstractReadoutMetric
from lightning_mi.metrics.readout import Average, mutual_information_readout


@final
class StandardError(AbstractReadoutMetric):
    r"""The standard error of :class:`~lightning_mi.metrics.MutualInformation` on the same batches.

    It is computed by the delta method (:func:`~lightning_mi.metrics.moments.read_moments`), with batches as independent
    draws. In a :class:`torchmetrics.MetricCollection` both metrics share one state, so it adds no cost to a step.

    Inputs of ``update``:
        - ``terms`` (:class:`~lightning_mi.BoundTerms`): the result of the bound on a batch.
        - ``scores`` (:class:`~lightning_mi.Scores`): the batch; only its numbers of pairs are used.

    Args:
        bound: The bound of the terms. Only its class attributes are used.
        average: ``"micro"``, ``"macro"`` or ``"plug-in"``.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` and ``forward`` return a scalar, nats, float64 (float32 on MPS); NaN for fewer than two batches.

    Raises:
        TypeError: ``bound`` is not a bound.
        ValueError: The average is unknown.


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
        super().__init__(mutual_information_readout(bound, average), **kwargs)

    def compute(self) -> Tensor:
        """The standard error over all batches of all ranks."""
        return self._readout.estimate(self.moments).standard_error
