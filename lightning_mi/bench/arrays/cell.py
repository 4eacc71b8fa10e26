"""A cell of the benchmark of arrays: one estimation."""

from dataclasses import dataclass
from typing import final

from lightning_mi.bench.cells import AbstractCell


@final
@dataclass(frozen=True)
class ArrayCell(AbstractCell):
    """One estimation: a method on samples of a law.

    Attributes:
        seed: Seed of the samples and of the estimation.
        config: The law, the method with its settings, and the numbers of samples and seed.
        task: Name of the law in :func:`~lightning_mi.bench.arrays.tasks.all_tasks`.
        method: Name of the method or peer.
        samples: Number of samples, n.
    """

    task: str
    method: str
    samples: int

    @property
    def kind(self) -> str:
        """The cell's name without its seed."""
        return f"{self.task}-{self.method}-n{self.samples}"
