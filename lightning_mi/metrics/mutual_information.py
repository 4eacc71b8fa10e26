"""Mutual information over many batches: micro, macro and plug-in averages."""

from typing import Any, final

from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.metrics.base import AbstractReadingMetric
from lightning_mi.metrics.moments import Estimate
from lightning_mi.metrics.readout import Average, read_mutual_information


@final
class MutualInformation(AbstractReadingMetric):
    r"""Mutual information, averaged over batches and processes in one of three ways.

    - ``"micro"`` pools the joint terms :math:`a_b` over all joint pairs and the marginal terms :math:`m_b` over all
      marginal pairs, and subtracts once: :math:`\frac{\sum J_b a_b}{\sum J_b} - \log \frac{\sum K_b e^{m_b}}{\sum K_b}`
      for the Donsker-Varadhan family and, for bounds whose marginal term is a plain mean,
      :math:`\frac{\sum J_b a_b}{\sum J_b} - \frac{\sum K_b m_b}{\sum K_b}`. How pairs are cut into batches does not
      matter. InfoNCE's terms are means over rows, and all its weights are :math:`J_b`.
    - ``"macro"`` is the mean of the batches' values. With the log of a mean it is biased upward, more so for small
      batches, even with a perfect critic.
    - ``"plug-in"`` is the pooled joint term with the marginal term replaced by what it is at ``target``. It is valid
      where a regularizer holds the log-normalizer there, and free of the heavy-tailed mean of exponentials.

    A batch without a joint pair is no estimate: macro and plug-in pass over it, and micro takes its marginal pairs only
    (nothing, where the bound is over rows).

    A value is reported as it is, also where it is negative. Moments are summed in float64 and in log space, so scores
    of 1e4 do not overflow.

    Inputs of ``update``:
        - ``terms`` (:class:`~lightning_mi.BoundTerms`): what the bound read on a batch.
        - ``scores`` (:class:`~lightning_mi.Scores`): the batch; only its numbers of pairs are read.

    Args:
        bound: The bound that gives the terms. It is asked how its terms pool, and not kept.
        average: ``"micro"``, ``"macro"`` or ``"plug-in"``.
        target: The log-normalizer's target, nats; read by plug-in only.
        return_standard_error: Let ``compute`` give an :class:`Estimate` instead of a scalar. Its standard error takes
            batches as independent; for micro it is the delta method's (see :func:`read_moments`).
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` and ``forward`` give a scalar, nats, float64 (float32 on MPS); NaN before the first batch
        that holds a joint pair.

    Raises:
        ValueError: The average is none of the three.

    Source: Choi and Lee 2022.

    Example:
        >>> import torch
        >>> from lightning_mi import Scores
        >>> from lightning_mi.bounds import DV
        >>> bound = DV()
        >>> micro, macro = MutualInformation(bound, "micro"), MutualInformation(bound, "macro")
        >>> for scale in (1.0, 3.0):
        ...     scores = Scores.from_matrix(scale * torch.tensor([[2.0, 1.0], [0.0, 2.0]]))
        ...     terms = bound(scores)
        ...     micro.update(terms, scores)
        ...     macro.update(terms, scores)
        >>> micro.compute()
        tensor(2.1753, dtype=torch.float64)
        >>> macro.compute()
        tensor(2.5122, dtype=torch.float64)
    """

    higher_is_better: bool = True

    def __init__(
        self,
        bound: AbstractBound,
        average: Average = "micro",
        target: float = 0.0,
        return_standard_error: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(read_mutual_information(bound, average, target), **kwargs)
        self.return_standard_error = return_standard_error

    def compute(self) -> Tensor | Estimate:
        """The estimate over all batches of all processes."""
        estimate = self._reading.estimate(self.moments)
        return estimate if self.return_standard_error else estimate.value
