"""Schedule: how long critics train."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How long critics train.

    Attributes:
        max_steps: Maximum number of steps.
        check_every: Steps between two evaluations on the validation samples.
        patience: Evaluations without an improvement of the members' mean before training stops.
        weight_decay: Weight decay of AdamW.
    """

    max_steps: int
    check_every: int = 50
    patience: int = 8
    weight_decay: float = 1e-2
