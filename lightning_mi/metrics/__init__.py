"""Metrics over batches and ranks: torchmetrics classes, and pure functions in ``functional``."""

import lightning_mi.metrics.functional as functional
from lightning_mi.metrics.effective_sample_fraction import EffectiveSampleFraction
from lightning_mi.metrics.jensen_shannon_limit import JensenShannonLimit
from lightning_mi.metrics.linear_probe import LinearProbeAccuracy
from lightning_mi.metrics.log_normalizer import LogNormalizer
from lightning_mi.metrics.moments import Estimate
from lightning_mi.metrics.mutual_information import MutualInformation
from lightning_mi.metrics.nearest_neighbor import NearestNeighborAccuracy
from lightning_mi.metrics.standard_error import StandardError

__all__ = [
    "EffectiveSampleFraction",
    "Estimate",
    "JensenShannonLimit",
    "LinearProbeAccuracy",
    "LogNormalizer",
    "MutualInformation",
    "NearestNeighborAccuracy",
    "StandardError",
    "functional",
]
