"""Callbacks: they observe a training, and change it only where they are told to."""

from lightning_mi.callbacks.adaptive import AdaptiveRegularizer
from lightning_mi.callbacks.held_out import HeldOutCheckpoint, HeldOutEarlyStopping
from lightning_mi.callbacks.probes import Probes
from lightning_mi.callbacks.stability import StabilityMonitor, StabilityWarning
from lightning_mi.callbacks.tensorboard_layout import TensorBoardLayout
from lightning_mi.callbacks.termination import SaveAtTermination

__all__ = [
    "AdaptiveRegularizer",
    "HeldOutCheckpoint",
    "HeldOutEarlyStopping",
    "Probes",
    "SaveAtTermination",
    "StabilityMonitor",
    "StabilityWarning",
    "TensorBoardLayout",
]
