"""Callbacks: they observe a training and never change it."""

from lightning_mi.callbacks.probes import Probes

__all__ = ["Probes"]
