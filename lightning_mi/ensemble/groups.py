"""Groups of ensemble members that compute a training step together, and the sequential group."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.bounds import BoundTerms
from lightning_mi.module import MIEstimationModule
from lightning_mi.training.first_step import FirstStep
from lightning_mi.training.step import StepOutput

Members = Sequence[MIEstimationModule]
ParamGroups = Sequence[dict[str, Any]]  # of one member's optimizer
READINGS = (*BoundTerms._fields, "penalty", "loss")


class GroupStep(NamedTuple):
    """A step of G members.

    Attributes:
        readings: (G, 7) ``READINGS``, nats, without gradient; the penalty is 0 without a regularizer.
        output: Returns the complete output of a member, by its index in the group.
    """

    readings: Tensor
    output: Callable[[int], StepOutput]


class AbstractGroup(ABC):
    """Members of an ensemble that compute a step together.

    Args:
        members: The members, in the order of the results of :meth:`step`.
        separate_batches: Each member has its own batch: the first dimension of a batch's entries runs over members.
    """

    def __init__(self, members: Members, *, separate_batches: bool = False) -> None:
        self.members = members
        self.separate_batches = separate_batches

    @abstractmethod
    def param_groups(self, member_groups: Sequence[ParamGroups]) -> list[dict[str, Any]]:
        """The parameter groups to optimize.

        Args:
            member_groups: The parameter groups of each member's optimizer.
        """

    @abstractmethod
    def step(self, batch: Any, backward: Callable[[Tensor], Any]) -> GroupStep:
        """Compute the members' gradients on a batch.

        Args:
            batch: A batch of the data module; with separate batches, those of this group's members.
            backward: Accumulates the gradients of a loss.
        """


@final
class SequentialGroup(AbstractGroup):
    """One step after the other: bitwise equal to a separate training of each member."""

    def __init__(self, members: Members, *, separate_batches: bool = False) -> None:
        super().__init__(members, separate_batches=separate_batches)
        self._first_steps = [FirstStep() for _ in members]
        for first_step in self._first_steps:
            first_step.start()

    def param_groups(self, member_groups: Sequence[ParamGroups]) -> list[dict[str, Any]]:
        """The parameter groups of all members."""
        return [group for groups in member_groups for group in groups]

    def step(self, batch: Any, backward: Callable[[Tensor], Any]) -> GroupStep:
        """Run forward and backward of each member in turn, so that one graph at a time is in memory.

        Raises:
            ValueError: At the first step: a subclass's loss increases with the bound's objective.
        """
        outputs = []
        for index, (member, first_step) in enumerate(zip(self.members, self._first_steps, strict=True)):
            output = member.step(batch_of_member(batch, index) if self.separate_batches else batch)
            first_step.check_sign(member, output)
            backward(output.loss)
            outputs.append(output)
        return GroupStep(torch.stack([_readings(output) for output in outputs]).detach(), outputs.__getitem__)


def batch_of_member(batch: Sequence[Tensor], index: int | Sequence[int]) -> list[Tensor]:
    """The batch of one member, or the batches of several, of entries whose first dimension runs over members.

    Example:
        >>> batch_of_member([torch.arange(6).view(3, 2)], 1)
        [tensor([2, 3])]
    """
    return [entry[index] for entry in batch]


def _readings(output: StepOutput) -> Tensor:
    penalty = torch.zeros_like(output.loss) if output.penalty is None else output.penalty
    return torch.stack([*output.terms, penalty, output.loss])
