"""Warn about a private name that an installed release has dropped."""

import warnings

import lightning.pytorch as L
import torch

from lightning_mi.exceptions import MIWarning


def warn_missing(name: str, consequence: str) -> None:
    warnings.warn(
        f"Lightning {L.__version__} with torch {torch.__version__} has no `{name}` any more. {consequence} Install the "
        "releases that lightning_mi was tested with (pyproject.toml), or a newer lightning_mi.",
        MIWarning,
        stacklevel=3,
    )
