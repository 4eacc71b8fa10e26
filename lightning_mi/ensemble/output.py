"""EnsembleOutput: the step outputs of all members of an ensemble."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from lightning_mi.bounds import BoundTerms
from lightning_mi.training.step import StepOutput


@final
@dataclass(frozen=True)
class EnsembleOutput:
    """The step outputs of all M members of an ensemble.

    Attributes:
        names: The members' names.
        readings: (M, 7), nats, without gradient: in each row the five :class:`BoundTerms`, the penalty (0 without a
            regularizer) and the loss.
    """

    names: tuple[str, ...]
    readings: Tensor
    _outputs: tuple[Callable[[int], StepOutput], ...]  # by group
    _places: tuple[tuple[int, int], ...]  # group and index in the group, by member

    @property
    def terms(self) -> BoundTerms:
        """The terms, of shape (M,) each."""
        return BoundTerms(*self.readings[:, :5].unbind(dim=1))

    @property
    def losses(self) -> Tensor:
        """(M,) the losses."""
        return self.readings[:, -1]

    def member(self, name: str) -> StepOutput:
        """The complete output of one member, with its scores."""
        group, index = self._places[self.names.index(name)]
        return self._outputs[group](index)
