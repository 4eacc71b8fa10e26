"""A cell of the benchmark of minimization: one training."""

from dataclasses import dataclass
from typing import final

from lightning_mi.bench.cells import AbstractCell


@final
@dataclass(frozen=True)
class MinimizeCell(AbstractCell):
    """One training with a penalty, or without.

    Attributes:
        seed: Seed of the task, the weights and the batches.
        config: The method with its settings, and those of the training and the audit.
        method: Name of the method.
        critic_steps: Critic steps for each batch; None for a method without a critic.
    """

    method: str
    critic_steps: int | None

    @property
    def kind(self) -> str:
        """The cell's name without its seed."""
        return self.method if self.critic_steps is None else f"{self.method}-steps{self.critic_steps}"
