"""Check and convert a prior of labels."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_prior(prior: str | Sequence[float] | Tensor, num_classes: int) -> Tensor:
    """(C,) probabilities in float64 on the CPU.

    Raises:
        ValueError: The prior is neither "uniform" nor C probabilities that sum to 1.
    """
    if isinstance(prior, str):
        if prior != "uniform":
            raise ValueError(f'Got prior={prior!r}: it is "uniform", the probabilities of the labels, or None.')
        return torch.full((num_classes,), 1 / num_classes, dtype=torch.float64)
    law = torch.as_tensor(prior, dtype=torch.float64, device="cpu").detach()
    if law.shape != (num_classes,):
        raise ValueError(
            f"Got a prior of shape {tuple(law.shape)} for {num_classes} classes: it is one probability for each label, "
            f"({num_classes},)."
        )
    if not bool((law.isfinite() & (law >= 0)).all()):
        raise ValueError(f"Got the prior {law.tolist()}: probabilities are finite and not negative.")
    if abs(float(law.sum()) - 1) > 1e-4:
        raise ValueError(
            f"Got a prior that sums to {float(law.sum()):g}: probabilities sum to 1. Divide counts by their sum."
        )
    return law / law.sum()  # removes rounding errors, as of float32 probabilities
