"""Callbacks. They observe a training, and change it only by documented options."""

from lightning_mi.callbacks.adaptive_regularizer import AdaptiveRegularizer
from lightning_mi.callbacks.averaged_weights import AveragedWeights
from lightning_mi.callbacks.held_out import HeldOutCheckpoint, HeldOutEarlyStopping
from lightning_mi.callbacks.information_plane import InformationPlane
from lightning_mi.callbacks.leakage_audit import LeakageAudit
from lightning_mi.callbacks.mi_monitor import MIMonitor
from lightning_mi.callbacks.mi_penalty import MIPenalty
from lightning_mi.callbacks.prediction_writer import PredictionWriter
from lightning_mi.callbacks.probes import Probes
from lightning_mi.callbacks.sigterm import SaveAtTermination
from lightning_mi.callbacks.stability.monitor import StabilityMonitor
from lightning_mi.callbacks.tensorboard.layout import TensorBoardLayout
from lightning_mi.exceptions import StabilityWarning

__all__ = [
    "AdaptiveRegularizer",
    "AveragedWeights",
    "HeldOutCheckpoint",
    "HeldOutEarlyStopping",
    "InformationPlane",
    "LeakageAudit",
    "MIMonitor",
    "MIPenalty",
    "PredictionWriter",
    "Probes",
    "SaveAtTermination",
    "StabilityMonitor",
    "StabilityWarning",
    "TensorBoardLayout",
]
