"""A cell of the benchmark of layer readings: one network, read by all methods."""

from dataclasses import dataclass
from typing import final

from lightning_mi.bench.cells import AbstractCell

LAYERS = ("net.1", "net.3", "net.5", "net.6")  # the outputs of the three ReLUs, and the logits
REFERENCE = "converged"
METHODS = ("InformationPlane", "stored", "online", REFERENCE)


@final
@dataclass(frozen=True)
class PlaneCell(AbstractCell):
    """One training of the network, whose layers all methods read at the end of the same epochs.

    Attributes:
        seed: Seed of the split, the weights and the batches.
        config: Settings of the training, the epochs and the methods.
    """

    @property
    def kind(self) -> str:
        """The cell's name without its seed."""
        return "plane"
