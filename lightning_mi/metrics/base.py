"""Base classes of the metrics of terms and scores: one vector of moments is their only state."""

from abc import ABC
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_mi._compat.torch_names import KeepsPrecision
from lightning_mi.bounds import BoundTerms
from lightning_mi.metrics._buffer import Batches
from lightning_mi.metrics.moments import merge_moments, no_moments
from lightning_mi.metrics.readout import Readout
from lightning_mi.scores.scores import Scores


class AbstractMomentsMetric(KeepsPrecision, Metric, ABC):
    """A metric whose state is the vector of :mod:`~lightning_mi.metrics.moments`: one all-gather merges all ranks.

    Args:
        name: Name of the state. In a :class:`torchmetrics.MetricCollection`, metrics share a state that has the same
            name and, at the first batch, the same values; so different moments need different names.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.
    """

    full_state_update: bool = False
    is_differentiable: bool = False

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._state = f"{name}_moments"
        self.add_state(self._state, no_moments(self.device), dist_reduce_fx=merge_moments)

    @property
    def moments(self) -> Tensor:
        """(K,) the moments of all batches so far, of this rank; within ``compute``, of all ranks."""
        moments: Tensor = getattr(self, self._state)
        return moments

    @moments.setter
    def moments(self, value: Tensor) -> None:
        setattr(self, self._state, value.to(self.device))

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one result of ``forward`` or ``compute``, or a list of results as a curve.

        Args:
            val: The result or results; by default the result of ``compute``.
            ax: The matplotlib axes; new ones by default.

        Returns:
            Figure and axes.
        """
        return self._plot(val, ax)  # documented by torchmetrics for custom metrics

    def _add(self, moments: Tensor) -> None:
        self.moments = merge_moments(torch.cat([self.moments.unsqueeze(0), moments]))


class AbstractReadoutMetric(AbstractMomentsMetric, ABC):
    """A metric of a bound's terms.

    Args:
        readout: The averaged terms and their weights; metrics whose readouts have the same name can share a state.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.
    """

    def __init__(self, readout: Readout, **kwargs: Any) -> None:
        super().__init__(readout.name, **kwargs)
        self._readout = readout

    def update(self, terms: BoundTerms, scores: Scores | Batches) -> None:
        """Add one batch.

        Args:
            terms: The result of the bound.
            scores: The batch.
        """
        self._add(self._readout.moments(terms, scores, self.moments.dtype))

    def update_batches(self, batches: Batches) -> None:
        """Update with several batches at once."""
        self.update(batches.terms, batches)
