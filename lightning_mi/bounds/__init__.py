"""Variational bounds of mutual information: functions of scores, one small module each."""

from lightning_mi.bounds.base import AbstractBound, BoundTerms
from lightning_mi.bounds.donsker_varadhan import DV, MINE, SMILE
from lightning_mi.bounds.infonce import InfoNCE
from lightning_mi.bounds.jensen_shannon import JS, gan_objective
from lightning_mi.bounds.log_density import BA, CLUB, CLUBSample, L1Out, Sandwich, sandwich
from lightning_mi.bounds.nwj_tuba import NWJ, TUBA
from lightning_mi.bounds.released import ReleasedJS, ReleasedNWJ, ReleasedTUBA

__all__ = [
    "BA",
    "CLUB",
    "DV",
    "JS",
    "MINE",
    "NWJ",
    "SMILE",
    "TUBA",
    "AbstractBound",
    "BoundTerms",
    "CLUBSample",
    "InfoNCE",
    "L1Out",
    "ReleasedJS",
    "ReleasedNWJ",
    "ReleasedTUBA",
    "Sandwich",
    "gan_objective",
    "sandwich",
]
