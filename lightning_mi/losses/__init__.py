"""Contrastive losses by name: compositions of critic, bound and pairing."""

from lightning_mi.losses.contrastive import clip, ntxent, supcon

__all__ = ["clip", "ntxent", "supcon"]
