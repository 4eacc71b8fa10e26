"""Pairings: from a batch to the scores of its joint and marginal pairs."""

from lightning_mi.pairs.all_pairs import AllPairs
from lightning_mi.pairs.base import AbstractPairing, AbstractTiledPairing
from lightning_mi.pairs.derangement import Derangement
from lightning_mi.pairs.enumerated_labels import EnumeratedLabels
from lightning_mi.pairs.independent_marginal import IndependentMarginal
from lightning_mi.pairs.local_global import LocalGlobal
from lightning_mi.pairs.overlapping_labels import OverlappingLabels
from lightning_mi.pairs.queue import Queue
from lightning_mi.pairs.same_id import SameId
from lightning_mi.pairs.same_label import SameLabel
from lightning_mi.pairs.time_steps import TimeSteps
from lightning_mi.pairs.total_correlation import TotalCorrelation
from lightning_mi.pairs.two_towers import TwoTowers
from lightning_mi.pairs.two_views import TwoViews
from lightning_mi.pairs.within_label import WithinLabel

__all__ = [
    "AbstractPairing",
    "AbstractTiledPairing",
    "AllPairs",
    "Derangement",
    "EnumeratedLabels",
    "IndependentMarginal",
    "LocalGlobal",
    "OverlappingLabels",
    "Queue",
    "SameId",
    "SameLabel",
    "TimeSteps",
    "TotalCorrelation",
    "TwoTowers",
    "TwoViews",
    "WithinLabel",
]
