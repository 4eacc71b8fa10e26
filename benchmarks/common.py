"""What the scripts share: a clock for trainings, a quiet process, and how rows are shown."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as L
import torch

from lightning_mi.bench.tables import markdown_table, write_csv


class Clock(L.Callback):
    """Processor seconds from the end of a warm-up to the end of the training.

    Args:
        warm_up: Steps that are not timed.
    """

    def __init__(self, warm_up: int = 0) -> None:
        self._warm_up = warm_up

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self._warm_up:
            self.started = time.process_time()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = time.process_time() - self.started


def quiet() -> None:
    """One thread, and no word of Lightning's short of an error."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)


def show(heading: Sequence[str], rows: Sequence[Sequence[str]], path: Path | None) -> None:
    """Print rows as a table, and keep them as CSV where there is a path."""
    print(markdown_table(heading, rows))
    if path is not None:
        write_csv(path, [dict(zip(heading, row, strict=True)) for row in rows])
