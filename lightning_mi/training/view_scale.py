"""Warn about views far from unit scale, from which a network with default initialization does not learn."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_mi.critics import AbstractCritic
from lightning_mi.exceptions import ViewScaleWarning
from lightning_mi.training.finite_checks import view_name

# Measured: Gaussian pairs of 1 nat in two columns, DV with Squared(0.1), 320 steps of Adam(lr=1e-3) with N = 128.
#
# | standard deviation          | 0.001 | 0.01 | 0.03 | 0.1  | 1    | 3    | 10   | 20    | 100  | 1000 |
# | SeparableCritic, 256-256    | 0.00  | 0.28 | 0.91 | 0.97 | 0.97 | 0.90 | 0.79 | -2130 | -1e5 | -2e7 |
# | JointCritic, 64-64          | 0.00  | 0.07 | 0.52 | 0.98 | 0.99 | 0.98 | 0.96 | 0.94  | 0.84 | -14  |
#
# | mean / standard deviation   | 0    | 3    | 10   | 20   | 30   | 50   | 100   | 1000 |
# | SeparableCritic, 256-256    | 0.97 | 0.91 | 0.47 | 0.48 | 0.38 | 0.04 | -0.19 | -56  |
# | JointCritic, 64-64          | 0.99 | 0.91 | 0.88 | 0.67 | 0.42 | 0.03 | 0.00  | 0.00 |
#
# Root mean squares over columns, because the variance of initial weights is proportional to 1 / fan-in: a constant
# pixel, an absent class or one large column among many has little effect. Ordinary data is well within the limits:
# cubed normal numbers have a standard deviation of 3.9, digits of 0 to 16 have 4.3, images in [0, 1] 0.3 and a mean of
# twice that.
_LARGE = 12.0
_SMALL = 0.03  # largest deviation from a column's mean, because one-hot vectors of many classes have a small variance
_OFFSET = 8.0  # root mean square of the columns' means, in standard deviations
_MIN_SAMPLES = 8  # the standard deviation of fewer varies too much

_NORMALIZATIONS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)


@torch.no_grad()
def warn_of_scale(critic: AbstractCritic, views: Sequence[Any]) -> bool:
    """Warn about the first view that is far from unit scale. Representations of a trained encoder may be small.

    The scale does not matter for critics without weight matrices or with a normalization layer.

    Args:
        critic: The critic of the views.
        views: (N, ...) each; only floating-point tensors are checked.

    Returns:
        True if a warning was issued.

    Warns:
        ViewScaleWarning: The standard deviation is large or small, or the mean is large compared with it.

    Example:
        >>> from lightning_mi import critics
        >>> warn_of_scale(critics.SeparableCritic(2, 2), [torch.randn(64, 2), torch.randn(64, 2)])
        False
    """
    if all(p.ndim < 2 for p in critic.parameters()) or any(isinstance(m, _NORMALIZATIONS) for m in critic.modules()):
        return False
    problems = {
        position: problem
        for position, view in enumerate(views)
        if isinstance(view, Tensor) and view.is_floating_point() and view.ndim and len(view) >= _MIN_SAMPLES
        if (problem := _problem(view))
    }
    if not problems or list(problems.values()) == [_CONSTANT] * len(views):  # FlatScoresCheck reports the latter
        return False
    position, problem = next(iter(problems.items()))
    rank_zero_warn(f"View {view_name(position)} {problem}", category=ViewScaleWarning)
    return True


_CONSTANT = (
    "is the same in all rows of the first training batch: the mutual information with a constant is 0. Check the data."
)


def _problem(view: Tensor) -> str | None:
    """The problem with the scale of a view (N, ...) and its remedy, or None."""
    rows = view.detach().flatten(1) if view.ndim > 1 else view.detach().unsqueeze(1)
    rows = rows if rows.dtype == torch.float64 else rows.float()
    mean = rows.mean(0)
    deviation = rows - mean
    spread, offset = (float(t.square().mean().sqrt()) for t in (deviation, mean))
    scale = f"has a mean of {offset:.3g} and a standard deviation of {spread:.3g} in the first training batch"
    remedy = (
        "Standardize each column that is not constant, (x - mean) / std with the mean and the standard deviation of "
        "the training set: mutual information does not change."
    )
    if spread > _LARGE:
        if view.requires_grad:
            remedy = "Standardize the input of the encoder, or end it with a normalization layer, such as nn.LayerNorm."
        return f"{scale}, far above unit scale: the scores are large, and the estimate may diverge. {remedy}"
    if view.requires_grad:  # an encoder learns its scale
        return None
    largest = float(deviation.abs().max())
    if largest <= 1e-6 * float(mean.abs().max()):
        return _CONSTANT
    if largest < _SMALL:
        return f"{scale}, far below unit scale: the critic learns slowly, and the estimate stays near 0. {remedy}"
    if offset > _OFFSET * spread:
        return f"{scale}: samples differ little compared with their mean, and the estimate is too low. {remedy}"
    return None
