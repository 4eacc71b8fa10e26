"""Log histograms and images to the loggers that support them, without importing their packages."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from lightning_mi.callbacks.tensorboard.figures import bin_edges

_BINS = 100
_LARGEST = 1e100  # its square is finite: an event file stores the sum of squares


def log_histogram(logger: Logger, name: str, values: Tensor, step: int) -> None:
    """Log a histogram, if the logger is TensorBoard's.

    Args:
        logger: A logger of the trainer, on rank 0.
        name: The tag.
        values: (N,) finite values on the CPU; nothing is logged if N is 0.
        step: The training step.
    """
    if isinstance(logger, TensorBoardLogger) and len(values):
        values = values.double().clamp(-_LARGEST, _LARGEST)
        # Equal widths: TensorBoard's default bins grow with the value and blur scores far from zero.
        edges = bin_edges(float(values.min()), float(values.max()), _BINS)
        logger.experiment.add_histogram(name, values.numpy(), step, bins=edges)


def log_figure(loggers: Iterable[Logger], name: str, figure: Figure, step: int) -> None:
    """Render a figure once; log it to TensorBoard, to loggers with ``log_image`` and to MLflow.

    Args:
        loggers: The trainer's loggers, on rank 0.
        name: The tag.
        figure: The figure.
        step: The training step.
    """
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib does not annotate its methods
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")
        elif callable(log_image := getattr(logger, "log_image", None)):
            log_image(key=name, images=[pixels], step=step)
        elif callable(mlflow_log_figure := getattr(_mlflow_client(logger), "log_figure", None)):
            mlflow_log_figure(getattr(logger, "run_id", None), figure, f"{name}-step{step}.png")


def _mlflow_client(logger: Logger) -> Any:
    # Only MLflow's logger has a run_id. Reading `experiment` of another logger could start a run.
    return logger.experiment if getattr(logger, "run_id", None) is not None else None  # type: ignore[attr-defined]  # not declared by Logger
