"""Report the progress of a training, and end it if the grid stops."""

import time
from collections.abc import Callable
from typing import final

import lightning.pytorch as L

from lightning_mi.bench.cells import Interrupted

_INTERVAL = 0.3  # seconds between two reports


@final
class StepProgress:
    """What a recorder does at each step beside recording.

    Args:
        report: Called a few times a second with the fraction of the steps done; 0 if their number is unknown.
        stopped: Called at every step; the training stops once it returns True.
    """

    def __init__(self, report: Callable[[float], None], stopped: Callable[[], bool]) -> None:
        self._report, self._stopped = report, stopped
        self._last_report = 0.0

    def step(self, trainer: L.Trainer) -> None:
        """Report, at most every 0.3 seconds.

        Raises:
            Interrupted: If ``stopped`` returned True.
        """
        if self._stopped():
            raise Interrupted
        if (now := time.monotonic()) - self._last_report > _INTERVAL:
            self._last_report = now
            self._report(trainer.global_step / float(trainer.estimated_stepping_batches))
