"""Callbacks: they observe a training and never change it."""

from lightning_mi.callbacks.probes import Probes
from lightning_mi.callbacks.tensorboard_layout import TensorBoardLayout

__all__ = ["Probes", "TensorBoardLayout"]
