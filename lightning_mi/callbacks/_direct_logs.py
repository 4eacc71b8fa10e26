"""Logging from a callback, at the cost of the logging alone."""

from collections.abc import Mapping

import lightning.pytorch as L
import torch

from lightning_mi._compat import logged_step


def log_now(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """Write metrics of the step that has just ended to all loggers, as Lightning's ``LearningRateMonitor`` does.

    ``LightningModule.log_dict`` of four numbers takes as long as a small critic's whole step, and writes them again at
    later steps. Other callbacks find them in ``trainer.callback_metrics`` all the same. Every process calls it with the
    same numbers.
    """
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=logged_step(trainer))
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
