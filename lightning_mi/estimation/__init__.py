"""The mutual information of two arrays, and of the columns of a frame."""

from lightning_mi.estimation.column_pairs import pairwise
from lightning_mi.estimation.pairwise_result import PairwiseMI
from lightning_mi.estimation.result import Finding, LearningCurvePoint, MIEstimate
from lightning_mi.estimation.two_arrays import estimate

__all__ = ["Finding", "LearningCurvePoint", "MIEstimate", "PairwiseMI", "estimate", "pairwise"]
