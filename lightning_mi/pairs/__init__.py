"""Pairings: how a batch becomes joint and marginal pairs, and their scores."""

from lightning_mi.pairs.base import AbstractPairing
from lightning_mi.pairs.labels import EnumeratedLabels, SameLabel
from lightning_mi.pairs.views import AllPairs, Derangement, IndependentMarginal, TwoViews

__all__ = [
    "AbstractPairing",
    "AllPairs",
    "Derangement",
    "EnumeratedLabels",
    "IndependentMarginal",
    "SameLabel",
    "TwoViews",
]
