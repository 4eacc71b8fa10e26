"""A lower limit of the mutual information from the Jensen-Shannon objective: bounded means, so a low variance."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_STEPS = 10  # of Newton's method, which needs 6 in float64


class Limit(NamedTuple):
    """A lower limit of the mutual information, and its derivative by the objective.

    Attributes:
        value: Nats, at least 0.
        slope: The derivative, positive, for the delta method.
    """

    value: Tensor
    slope: Tensor


@torch.no_grad()
def jensen_shannon_limit(objective: Tensor) -> Limit:
    r"""The smallest mutual information that is compatible with a value of :func:`gan_objective`.

    With exact expectations, the objective of any critic is at most :math:`2 D - 2 \log 2`, with D the Jensen-Shannon
    divergence of the joint law from the product of the marginals. Among all pairs of laws with this D, the laws
    (1, 0) and (q, 1 - q) on two points have the smallest Kullback-Leibler divergence, :math:`-\log q`. So the limit is
    :math:`-\log q` with

    .. math:: (1 + q) \log (1 + q) - q \log q = -\text{objective}

    It holds for every critic, and is loose even for the best one: 1.2, 3.4 and 5.5 at 2, 6 and 10 nats of Gaussian
    pairs. The limit is convex, so its mean over batches is too high: evaluate it at the mean of the objective.

    Source: Dorent et al. 2025; Harremoës and Vajda 2011 (two points suffice).

    Args:
        objective: Any shape; nats. Below -2 log 2 the limit is 0. At 0, where no pair is misclassified, it is that of
            the smallest positive number of the dtype instead of infinity.

    Returns:
        Limits and slopes of the shape of ``objective``, without gradient.

    Example:
        >>> jensen_shannon_limit(torch.tensor([-1.5, -0.5, 0.0])).value
        tensor([ 0.0000,  1.7266, 91.8677])
    """
    target = (-objective).clamp(torch.finfo(objective.dtype).tiny, 2 * math.log(2))
    # With u = -log q the left-hand side is q * ratio, and its logarithm is concave and decreasing in u. So Newton's
    # method, from below the root, overshoots it once and then descends to it.
    log_target = target.log()
    u = (-log_target).clamp(min=0)
    for _ in range(_STEPS):
        ratio, slope = _ratio_and_slope(u)
        u = u + (ratio.log() - u - log_target) * ratio / slope
    u = u.clamp(min=0)
    return Limit(u, u.exp().clamp(max=torch.finfo(u.dtype).max) / _ratio_and_slope(u)[1])


def _ratio_and_slope(u: Tensor) -> tuple[Tensor, Tensor]:
    """The left-hand side of the equation, and minus its derivative in u, both divided by q = exp(-u)."""
    q = (-u).exp()
    log1p = q.log1p()
    return (1 + q) * torch.where(q > 0, log1p / q, 1.0) + u, u + log1p
