"""What scores, the masks of their pairs and the weights of candidates must be like."""

import torch
from torch import Tensor

from lightning_mi.numerics import upcast


def check_scores(scores: Tensor, name: str, ndim: int, may_be_empty: bool = False) -> None:
    """Raise a ValueError unless these are floating-point numbers in so many dimensions."""
    empty = scores.numel() == 0 and not may_be_empty
    if scores.ndim != ndim or not scores.is_floating_point() or empty:
        raise ValueError(
            f"Got `{name}` of shape {tuple(scores.shape)} and type {scores.dtype}: "
            f"scores are floating-point numbers in {ndim} dimension{'s' * (ndim > 1)}, at least one of them."
        )


def check_mask(mask: Tensor, name: str, matrix: Tensor) -> Tensor:
    """Raise a ValueError unless this is a boolean for each entry of the matrix."""
    if mask.dtype != torch.bool or mask.shape != matrix.shape:
        raise ValueError(
            f"Got a `{name}` mask of shape {tuple(mask.shape)} and type {mask.dtype} for scores of shape "
            f"{tuple(matrix.shape)}: it must be boolean and of the same shape."
        )
    return mask


def check_log_weights(log_weights: Tensor, marginal: Tensor, matrix: Tensor) -> Tensor | None:
    """The weights in the matrix's type; None where all are equal, which every reduction takes by default."""
    if log_weights.shape != matrix.shape[1:] or not log_weights.is_floating_point():
        raise ValueError(
            f"Got log_weights of shape {tuple(log_weights.shape)} and type {log_weights.dtype} for scores of shape "
            f"{tuple(matrix.shape)}: there is one floating-point number for each candidate, ({matrix.shape[1]},)."
        )
    total = upcast(log_weights).exp().sum()
    if not abs(total - 1) < 1e-3:
        raise ValueError(f"Got log_weights whose weights sum to {total:g}: they are a law of the candidates, sum 1.")
    if not marginal.all():
        raise ValueError(
            "Got log_weights and a `marginal` mask that leaves out pairs: the weights sum to 1 over every row's pairs. "
            "Give the candidates to leave out a log-weight of -inf."
        )
    if (log_weights == log_weights[0]).all():
        return None
    return log_weights.to(matrix.device, matrix.dtype)
