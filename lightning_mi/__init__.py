"""Neural mutual-information estimation and MI-based losses for PyTorch Lightning.

Names are loaded when they are first used, so that the command line answers without importing PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lightning_mi import bounds, callbacks, critics, data, encoders, metrics, pairs, probes, regularizers
    from lightning_mi.atomic_checkpoints import AtomicCheckpointIO
    from lightning_mi.bounds import BoundTerms
    from lightning_mi.checkpoint_files import CheckpointError
    from lightning_mi.deferred import DoubleBackwardError
    from lightning_mi.ensemble import MIEnsemble
    from lightning_mi.finite import NonFiniteBatchError, NonFiniteStepError
    from lightning_mi.module import MIEstimationModule
    from lightning_mi.numerics import MINumericalWarning
    from lightning_mi.scores import Scores
    from lightning_mi.view_scale import ViewScaleWarning

_MODULES = ("bounds", "callbacks", "critics", "data", "encoders", "metrics", "pairs", "probes", "regularizers")
_NAMES = {
    "AtomicCheckpointIO": "atomic_checkpoints",
    "BoundTerms": "bounds",
    "CheckpointError": "checkpoint_files",
    "DoubleBackwardError": "deferred",
    "MIEnsemble": "ensemble",
    "MIEstimationModule": "module",
    "MINumericalWarning": "numerics",
    "NonFiniteBatchError": "finite",
    "NonFiniteStepError": "finite",
    "Scores": "scores",
    "ViewScaleWarning": "view_scale",
}

__all__ = [
    "AtomicCheckpointIO",
    "BoundTerms",
    "CheckpointError",
    "DoubleBackwardError",
    "MIEnsemble",
    "MIEstimationModule",
    "MINumericalWarning",
    "NonFiniteBatchError",
    "NonFiniteStepError",
    "Scores",
    "ViewScaleWarning",
    "bounds",
    "callbacks",
    "critics",
    "data",
    "encoders",
    "metrics",
    "pairs",
    "probes",
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
