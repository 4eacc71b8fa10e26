r"""What the metrics keep of the batches they have seen: one vector, of fixed size, that merges exactly.

An estimate is a sum of one or two means over batches. Batch :math:`b` brings :math:`u_b = (1, w, w x, w', w' x')`: the
weights :math:`w, w'` and the values :math:`x, x'` of the two means, where a value that is a logarithm stands for its
exponential. The vector holds the log-scale of each such exponential (a running maximum) and, in units of it, the Gram
matrix :math:`\sum_b u_b u_b^T`. Its first row are the sums that give the estimate, the rest is what its standard error
takes. Vectors of any batches, in any order, of any processes, merge by rescaling and adding.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_mi.numerics import to_common_scale

_MEANS = 2
_GRAM = 1 + 2 * _MEANS
NUM_MOMENTS = _MEANS + _GRAM**2


class Mean(NamedTuple):
    """A mean over batches.

    Attributes:
        weight: What a batch counts by: its joint pairs, its marginal pairs, or once.
        log: The value of a batch is a logarithm: its exponential is averaged, and the mean is again a logarithm.
        factor: The factor of the mean in the estimate.
    """

    weight: Literal["joint", "marginal", "batch"]
    log: bool = False
    factor: float = 1.0


class Estimate(NamedTuple):
    """A number read from several batches, and how far chance may have moved it.

    Attributes:
        value: The estimate, a scalar; nats.
        standard_error: Its standard deviation, the batches taken as independent; NaN with fewer than two batches.
    """

    value: Tensor
    standard_error: Tensor


def moments_dtype(device: torch.device) -> torch.dtype:
    """Float64 wherever the device has it: the standard error squares, and sums of long runs must keep digits."""
    return torch.float32 if device.type == "mps" else torch.float64


def no_moments(device: torch.device) -> Tensor:
    """(K,) the moments of no batch."""
    moments = torch.zeros(NUM_MOMENTS, dtype=moments_dtype(device), device=device)
    moments[:_MEANS] = -torch.inf
    return moments


def batch_moments(
    means: Sequence[Mean],
    values: Sequence[Tensor],
    *,
    num_joint: int,
    num_marginal: int,
    dtype: torch.dtype,
    copies: int = 1,
) -> Tensor:
    """The moments of a single batch.

    A batch without a joint pair is no estimate: it brings what it has, its marginal pairs, to a mean over those and
    nothing to another mean. One that brings nothing at all is not counted among the batches.

    Args:
        means: The means of the estimate, one or two.
        values: The batch's value for each of them, scalars.
        num_joint: The batch's joint pairs.
        num_marginal: The batch's marginal pairs.
        dtype: Of the result.
        copies: How many processes take in this same batch, so that merged they count it once.

    Returns:
        (K,) without gradient, on the device of the values.
    """
    counts = {"joint": num_joint, "marginal": num_marginal, "batch": int(num_joint > 0)}
    values = [value.detach().to(dtype) for value in values]
    one, zero = values[0].new_ones(()), values[0].new_zeros(())
    log_scales, units, weights = [zero] * _MEANS, [one] * _GRAM, [0] * _GRAM
    weights[0] = int(any(counts[mean.weight] for mean in means))
    for i, (mean, value) in enumerate(zip(means, values, strict=True)):
        weights[1 + 2 * i] = weights[2 + 2 * i] = counts[mean.weight]
        if mean.log:
            log_scales[i] = value
        elif counts[mean.weight]:  # Else it stays 1: a weight of 0 would turn an infinite value into NaN.
            units[2 + 2 * i] = value
    # Not blocking: the processor need not wait for an accelerator to take the weights.
    u = torch.stack(units) * torch.tensor(weights, dtype=dtype).to(one.device, non_blocking=True)
    gram = u.outer(u) if copies == 1 else u.outer(u) / copies
    return torch.cat([torch.stack(log_scales), gram.flatten()])


def merge_moments(moments: Tensor) -> Tensor:
    """Merge the moments of disjoint sets of batches: of two steps, or of all processes.

    Args:
        moments: (S, K) those of S sets.

    Returns:
        (K,) those of all their batches.
    """
    log_scales, factors = to_common_scale(moments[:, :_MEANS])
    scale = moments.new_ones(len(moments), _GRAM)
    scale[:, 2::2] = factors
    gram = moments[:, _MEANS:].view(-1, _GRAM, _GRAM) * scale.unsqueeze(1) * scale.unsqueeze(2)
    return torch.cat([log_scales, gram.sum(dim=0).flatten()])


def read_moments(means: Sequence[Mean], moments: Tensor) -> Estimate:
    r"""The estimate, the sum of factor times mean, with its standard error by the delta method.

    Batch :math:`b` moves a mean :math:`\bar x = \sum w x / \sum w` by its influence :math:`w_b (x_b - \bar x) / \sum w`
    and the logarithm of one by :math:`w_b (x_b / \bar x - 1) / \sum w`; the influences on both means add up within a
    batch, because joint and marginal pairs share their samples. With B batches the squared standard error is
    :math:`\frac{B}{B - 1}` times the sum of their squares. It supposes the means close to their expectation, so it is
    too small where few pairs carry an average of exponentials.

    Args:
        means: As given to :func:`batch_moments`.
        moments: (K,) of all batches.
    """
    log_scales, gram = moments[:_MEANS], moments[_MEANS:].view(_GRAM, _GRAM)
    sums, count = gram[0], gram[0, 0]
    value, gradient = moments.new_zeros(()), torch.zeros_like(sums)
    for i, mean in enumerate(means):
        weight, total = sums[1 + 2 * i], sums[2 + 2 * i]
        average = total / weight
        value = value + mean.factor * (log_scales[i] + average.log() if mean.log else average)
        slope = mean.factor / (total if mean.log else weight)
        gradient[1 + 2 * i], gradient[2 + 2 * i] = -slope * average, slope
    # Rounding can leave a variance of zero slightly negative.
    squares = (gradient @ gram @ gradient).clamp(min=0)
    standard_error = (squares * count / (count - 1)).sqrt()
    return Estimate(value, standard_error.masked_fill(count < 2, torch.nan))
