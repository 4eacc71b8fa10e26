"""Options of an estimation, and what each budget buys."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.estimation.result import Units
from lightning_mi.estimation.schedule import Schedule
from lightning_mi.regularizers import AbstractRegularizer
from lightning_mi.utilities.checks import check_choice, check_instance, check_number, check_whole

Budget = Literal["quick", "standard", "careful"]


@dataclass(frozen=True)
class Plan:
    """What a budget buys.

    Attributes:
        members: Critics of each fold.
        fractions: Fractions of the samples that critics are fitted to, for the learning curve; 1 last.
        schedule: How long they train.
    """

    members: int
    fractions: tuple[float, ...]
    schedule: Schedule


PLANS: dict[Budget, Plan] = {
    "quick": Plan(1, (1.0,), Schedule(max_steps=600, patience=4)),
    "standard": Plan(2, (0.5, 1.0), Schedule(max_steps=1500)),
    "careful": Plan(4, (0.25, 0.5, 1.0), Schedule(max_steps=4000, check_every=100)),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of :func:`lightning_mi.estimate`, with their meanings and defaults.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option is out of range.
    """

    folds: int
    members: int | None
    budget: Budget
    permutations: int
    confidence: float
    critic: Callable[[int, int], AbstractCritic] | None
    bound: AbstractBound
    regularizer: AbstractRegularizer | None
    units: Units
    seed: int
    accelerator: str
    progress: bool | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        check_choice("budget", self.budget, get_args(Budget))
        check_choice("units", self.units, get_args(Units))
        for name, minimum in (("folds", 2), ("permutations", 19), ("seed", 0)):
            check_whole(name, getattr(self, name), minimum)
        if self.members is not None:
            check_whole("members", self.members, 1)
        check_instance("bound", self.bound, AbstractBound, "bounds.DV()")
        if self.regularizer is not None:
            check_instance("regularizer", self.regularizer, AbstractRegularizer, "regularizers.Squared(weight=0.1)")
        if self.critic is not None:
            _check_critic(self.critic)
        if self.progress is not None:
            check_instance("progress", self.progress, bool, "True, False or None")
        check_number("confidence", self.confidence, "a probability")
        if not 0 < self.confidence < 1:
            raise ValueError(f"Got confidence={self.confidence}: it is a probability between 0 and 1, such as 0.95.")

    @property
    def holds_log_normalizer(self) -> bool:
        """Whether the regularizer holds the critics' log-normalizer at 0."""
        regularizer = self.regularizer
        if regularizer is None or regularizer.target != 0:
            return False
        return callable(regularizer.weight) or regularizer.weight > 0

    @property
    def unit(self) -> float:
        """A nat in units."""
        return 1.0 if self.units == "nats" else 1 / math.log(2)

    @property
    def plan(self) -> Plan:
        """What the budget buys."""
        return PLANS[self.budget]


def _check_critic(critic: Any) -> None:
    if isinstance(critic, AbstractCritic) or not callable(critic):
        raise TypeError(
            f"Got critic of type {type(critic).__name__}: it must be a function that creates one from the numbers of "
            "columns. Write critic=lambda x_dim, y_dim: critics.SeparableCritic(x_dim, y_dim)."
        )
