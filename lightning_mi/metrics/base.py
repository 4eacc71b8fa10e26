"""What the metrics share: one vector of moments as their only state."""

from abc import ABC
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_mi.bounds import BoundTerms
from lightning_mi.metrics._batches import Batches
from lightning_mi.metrics.moments import Estimate, merge_moments, moments_dtype, no_moments
from lightning_mi.metrics.readout import Reading
from lightning_mi.scores.scores import Scores


class AbstractMomentsMetric(Metric, ABC):
    """A metric whose state is the vector of :mod:`~lightning_mi.metrics.moments`, so one gather merges all processes.

    Args:
        name: What the moments are of. A :class:`torchmetrics.MetricCollection` lets metrics share a state that has the
            same name and, at the first batch, the same numbers; so unlike moments need unlike names.
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
        """(K,) the moments of all batches so far; of this process, but for within ``compute``."""
        moments: Tensor = getattr(self, self._state)
        return moments

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one result of ``forward`` or ``compute``, or a list of them as a curve.

        Args:
            val: The result or results; what ``compute`` gives by default. Of an :class:`Estimate` the value is drawn.
            ax: The matplotlib axes to draw on; new ones by default.

        Returns:
            Figure and axes.
        """
        val = self.compute() if val is None else val
        many = isinstance(val, Sequence) and not isinstance(val, Estimate)
        return self._plot([_value(v) for v in val] if many else _value(val), ax)

    def _add(self, batches: Tensor) -> None:
        setattr(self, self._state, merge_moments(torch.cat([self.moments.unsqueeze(0), batches])))

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        # The moments follow the device but never the type: half precision, which Lightning's "bf16-true" asks of all
        # states, would not hold a count of pairs.
        super()._apply(fn, exclude_state=(*exclude_state, self._state))
        self._defaults[self._state] = no_moments(self.device)
        setattr(self, self._state, self.moments.to(self.device, moments_dtype(self.device)))
        return self


class AbstractReadingMetric(AbstractMomentsMetric, ABC):
    """A metric of what is read in a bound's terms.

    Args:
        reading: Which of them, and how they pool; metrics whose readings have the same name can share a state.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.
    """

    def __init__(self, reading: Reading, **kwargs: Any) -> None:
        super().__init__(reading.name, **kwargs)
        self._reading = reading

    def update(self, terms: BoundTerms, scores: Scores | Batches) -> None:
        """Take in one batch, or several at once."""
        self._add(self._reading.moments(terms, scores, self.moments.dtype))


def _value(result: Tensor | Estimate) -> Tensor:
    return result.value if isinstance(result, Estimate) else result
