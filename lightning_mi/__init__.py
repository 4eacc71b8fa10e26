"""Neural mutual-information estimation and MI-based losses for PyTorch Lightning.

Names are imported on first use, so that the command line starts without importing PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lightning_mi import (
        bounds,
        callbacks,
        critics,
        data,
        encoders,
        exceptions,
        losses,
        metrics,
        pairs,
        regularizers,
    )
    from lightning_mi.bottleneck import BottleneckModule, GaussianBottleneck
    from lightning_mi.bounds.base import BoundTerms
    from lightning_mi.checkpoints.atomic_io import AtomicCheckpointIO
    from lightning_mi.ensemble.ensemble import MIEnsemble
    from lightning_mi.estimation.column_pairs import pairwise
    from lightning_mi.estimation.estimator import MutualInformationEstimator
    from lightning_mi.estimation.pairwise_result import PairwiseMI
    from lightning_mi.estimation.result import Finding, MIEstimate
    from lightning_mi.estimation.two_arrays import estimate
    from lightning_mi.exceptions import (
        CheckpointError,
        DoubleBackwardError,
        EstimateInputError,
        MIError,
        MINumericalWarning,
        MIWarning,
        NonFiniteBatchError,
        NonFiniteStepError,
        ViewScaleWarning,
    )
    from lightning_mi.loss import MILoss, MILossOutput
    from lightning_mi.minimizer import MIMinimizer, MIMinimizerOutput
    from lightning_mi.module import MIEstimationModule
    from lightning_mi.scores.scores import Scores
    from lightning_mi.training.online_probe import OnlineLinearProbe

_MODULES = (
    "bounds",
    "callbacks",
    "critics",
    "data",
    "encoders",
    "exceptions",
    "losses",
    "metrics",
    "pairs",
    "regularizers",
)
_NAMES = {
    "AtomicCheckpointIO": "checkpoints.atomic_io",
    "BottleneckModule": "bottleneck",
    "BoundTerms": "bounds.base",
    "CheckpointError": "exceptions",
    "DoubleBackwardError": "exceptions",
    "EstimateInputError": "exceptions",
    "Finding": "estimation.result",
    "GaussianBottleneck": "bottleneck",
    "MIEnsemble": "ensemble.ensemble",
    "MIError": "exceptions",
    "MIEstimate": "estimation.result",
    "MIEstimationModule": "module",
    "MILoss": "loss",
    "MILossOutput": "loss",
    "MIMinimizer": "minimizer",
    "MIMinimizerOutput": "minimizer",
    "MINumericalWarning": "exceptions",
    "MIWarning": "exceptions",
    "MutualInformationEstimator": "estimation.estimator",
    "NonFiniteBatchError": "exceptions",
    "NonFiniteStepError": "exceptions",
    "OnlineLinearProbe": "training.online_probe",
    "PairwiseMI": "estimation.pairwise_result",
    "Scores": "scores.scores",
    "ViewScaleWarning": "exceptions",
    "estimate": "estimation.two_arrays",
    "pairwise": "estimation.column_pairs",
}

__all__ = [
    "AtomicCheckpointIO",
    "BottleneckModule",
    "BoundTerms",
    "CheckpointError",
    "DoubleBackwardError",
    "EstimateInputError",
    "Finding",
    "GaussianBottleneck",
    "MIEnsemble",
    "MIError",
    "MIEstimate",
    "MIEstimationModule",
    "MILoss",
    "MILossOutput",
    "MIMinimizer",
    "MIMinimizerOutput",
    "MINumericalWarning",
    "MIWarning",
    "MutualInformationEstimator",
    "NonFiniteBatchError",
    "NonFiniteStepError",
    "OnlineLinearProbe",
    "PairwiseMI",
    "Scores",
    "ViewScaleWarning",
    "bounds",
    "callbacks",
    "critics",
    "data",
    "encoders",
    "estimate",
    "exceptions",
    "losses",
    "metrics",
    "pairs",
    "pairwise",
    "regularizers",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"lightning_mi.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"lightning_mi.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'lightning_mi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
