"""Callbacks: they observe a training and never change it, except to end it."""

from lightning_mi.callbacks.held_out import HeldOutCheckpoint, HeldOutEarlyStopping
from lightning_mi.callbacks.probes import Probes
from lightning_mi.callbacks.tensorboard_layout import TensorBoardLayout

__all__ = ["HeldOutCheckpoint", "HeldOutEarlyStopping", "Probes", "TensorBoardLayout"]
