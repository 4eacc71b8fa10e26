"""Histograms and pictures, to the loggers that can show them. None of their packages is imported."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from lightning_mi.callbacks.tensorboard.figures import bin_edges

_BINS = 100
_LARGEST = 1e100  # its square is finite: a histogram keeps the sum of squares


def log_histogram(logger: Logger, name: str, values: Tensor, step: int) -> None:
    """Give a logger a histogram, if it is TensorBoard's.

    Args:
        logger: Of the trainer, on the first process.
        name: Of the histogram.
        values: (N,) finite values on the CPU; without any there is no histogram.
        step: The training step.
    """
    if isinstance(logger, TensorBoardLogger) and len(values):
        values = values.double().clamp(-_LARGEST, _LARGEST)
        # Bins of equal width: TensorBoard's default ones grow with the value, and blur scores far from zero.
        edges = bin_edges(float(values.min()), float(values.max()), _BINS)
        logger.experiment.add_histogram(name, values.numpy(), step, bins=edges)


def log_picture(loggers: Iterable[Logger], name: str, figure: Figure, step: int) -> None:
    """Draw a figure once and give it to TensorBoard, to a logger with a ``log_image`` and to an MLflow client.

    Args:
        loggers: Of the trainer, on the first process.
        name: Of the picture.
        figure: What to draw.
        step: The training step.
    """
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib leaves its methods without annotations
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")
        elif callable(log_image := getattr(logger, "log_image", None)):
            log_image(key=name, images=[pixels], step=step)
        elif callable(log_figure := getattr(_client(logger), "log_figure", None)):
            log_figure(getattr(logger, "run_id", None), figure, f"{name}-step{step}.png")


def _client(logger: Logger) -> Any:
    # Only MLflow's logger has a run_id; asking others for an `experiment` could start one. Logger declares neither.
    return logger.experiment if getattr(logger, "run_id", None) is not None else None  # type: ignore[attr-defined]  # as just said
