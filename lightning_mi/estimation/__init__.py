"""The mutual information of two arrays."""

from lightning_mi.estimation.result import Finding, LearningCurvePoint, MIEstimate
from lightning_mi.estimation.two_arrays import estimate

__all__ = ["Finding", "LearningCurvePoint", "MIEstimate", "estimate"]
