"""MutualInformation: micro, macro and plug-in averages over many batches."""

from typing import Any, final

from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.metrics.base import AbstractReadoutMetric
from lightning_mi.metrics.readout import Average, mutual_information_readout


@final
class MutualInformation(AbstractReadoutMetric):
    r"""Mutual information, averaged over batches and ranks in one of three ways.

    With :math:`a_b, m_b` the joint and marginal term of batch b, and :math:`J_b, K_b` its numbers of joint and marginal
    pairs:

    - ``"micro"`` pools the terms over all pairs and subtracts once. For the Donsker-Varadhan family it is
      :math:`\frac{\sum J_b a_b}{\sum J_b} - \log \frac{\sum K_b e^{m_b}}{\sum K_b}`; for bounds whose marginal term is
      a plain mean, :math:`\frac{\sum J_b a_b}{\sum J_b} - \frac{\sum K_b m_b}{\sum K_b}`. The result does not depend
      on how the pairs are divided into batches. InfoNCE's terms are means over rows, and all weights are :math:`J_b`.
    - ``"macro"`` is the mean of the batches' values. With the log of a mean it is biased upward, more so for small
      batches, even with a perfect critic.
    - ``"plug-in"`` is the pooled joint term minus the marginal term at ``target``. It is valid if a regularizer holds
      the log-normalizer at the target, and free of the heavy-tailed mean of exponentials.

    A batch without joint pairs is no estimate: macro and plug-in skip it, and micro uses its marginal pairs only (not
    for InfoNCE, which is normalized by rows). Negative values are reported as they are. Moments are summed in float64
    and in log space, so scores of 1e4 do not overflow. :class:`StandardError` is the metric of the standard error.

    Inputs of ``update``:
        - ``terms`` (:class:`~lightning_mi.BoundTerms`): the result of the bound on a batch.
        - ``scores`` (:class:`~lightning_mi.Scores`): the batch; only its numbers of pairs are used.

    Args:
        bound: The bound of the terms. Only its class attributes and ``plug_in`` are used.
        average: ``"micro"``, ``"macro"`` or ``"plug-in"``.
        target: The log-normalizer's target, nats; for plug-in only.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` and ``forward`` return a scalar, nats, float64 (float32 on MPS); NaN before the first batch that has
        a joint pair.

    Raises:
        TypeError: ``bound`` is not a bound.
        ValueError: The average is unknown.

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

    def __init__(self, bound: AbstractBound, average: Average = "micro", *, target: float = 0.0, **kwargs: Any) -> None:
        super().__init__(mutual_information_readout(bound, average, target), **kwargs)

    def compute(self) -> Tensor:
        """The estimate over all batches of all ranks."""
        return self._readout.estimate(self.moments).value
