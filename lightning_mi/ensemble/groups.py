"""How members of an ensemble take a step: one after the other, or in another way that gives the same."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from lightning_mi.bounds import BoundTerms
from lightning_mi.module import MIEstimationModule
from lightning_mi.training.step import StepOutput

Members = Sequence[MIEstimationModule]
Settings = Sequence[dict[str, Any]]
READINGS = (*BoundTerms._fields, "penalty", "loss")


class AbstractGroup(ABC):
    """Members of an ensemble that take a step together.

    Args:
        members: In the order of what :meth:`step` returns.
    """

    def __init__(self, members: Members) -> None:
        self.members = members

    @abstractmethod
    def parameter_groups(self, own: Sequence[Settings]) -> list[dict[str, Any]]:
        """What trains, as an optimizer takes it.

        Args:
            own: The parameter groups of each member's own optimizer.
        """

    @abstractmethod
    def step(self, batch: Any, backward: Callable[[Tensor], Any]) -> tuple[Tensor, Callable[[int], StepOutput]]:
        """Compute the members' gradients on a batch.

        Args:
            batch: As a data module gives it.
            backward: Called with losses; adds to the gradients.

        Returns:
            (G, 7) ``READINGS`` of G members, without gradient, and what gives a member's whole output.
        """


@final
class OneByOne(AbstractGroup):
    """Each member takes its own step: exactly what it would do in a training of its own."""

    def parameter_groups(self, own: Sequence[Settings]) -> list[dict[str, Any]]:
        """The members' own parameters."""
        return [group for groups in own for group in groups]

    def step(self, batch: Any, backward: Callable[[Tensor], Any]) -> tuple[Tensor, Callable[[int], StepOutput]]:
        """Each member's graph is gone before the next is made, so that they meet in the cache and not in memory."""
        outputs = []
        for member in self.members:
            output = member.step(batch)
            backward(output.loss)
            outputs.append(output)
        return torch.stack([_readings(output) for output in outputs]).detach(), outputs.__getitem__


def _readings(output: StepOutput) -> Tensor:
    penalty = torch.zeros_like(output.loss) if output.penalty is None else output.penalty
    return torch.stack([*output.terms, penalty, output.loss])
