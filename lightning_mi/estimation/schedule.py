"""Schedule: how long and how fast critics train."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How long and how fast critics train.

    Attributes:
        max_steps: Maximum number of steps.
        check_every: Steps between two evaluations on the validation samples.
        patience: Evaluations without an improvement of the members' mean before training stops.
        batch_size: Pairs of a batch.
        lr: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
    """

    max_steps: int
    check_every: int = 50
    patience: int = 8
    batch_size: int = 256
    lr: float = 2e-3
    weight_decay: float = 1e-2
