"""Variational bounds of mutual information: functions of scores, one small module each."""

from lightning_mi.bounds.base import AbstractBound, BoundTerms
from lightning_mi.bounds.decoupled import DCL
from lightning_mi.bounds.density_ratio import RPC, Hellinger
from lightning_mi.bounds.donsker_varadhan import DV, MINE, SMILE
from lightning_mi.bounds.infonce import InfoNCE
from lightning_mi.bounds.jensen_shannon import JS, gan_objective
from lightning_mi.bounds.jensen_shannon_limit import jensen_shannon_limit
from lightning_mi.bounds.log_density import BA, CLUB, CLUBSample, L1Out, Sandwich, sandwich
from lightning_mi.bounds.noise_contrastive import NCE
from lightning_mi.bounds.nwj_tuba import NWJ, TUBA
from lightning_mi.bounds.released import ReleasedJS, ReleasedNWJ, ReleasedTUBA

__all__ = [
    "BA",
    "CLUB",
    "DCL",
    "DV",
    "JS",
    "MINE",
    "NCE",
    "NWJ",
    "RPC",
    "SMILE",
    "TUBA",
    "AbstractBound",
    "BoundTerms",
    "CLUBSample",
    "Hellinger",
    "InfoNCE",
    "L1Out",
    "ReleasedJS",
    "ReleasedNWJ",
    "ReleasedTUBA",
    "Sandwich",
    "gan_objective",
    "jensen_shannon_limit",
    "sandwich",
]
