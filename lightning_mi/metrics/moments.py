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

from lightning_mi.utilities.numerics import to_common_scale

_MEANS = 2
_GRAM = 1 + 2 * _MEANS
NUM_MOMENTS = _MEANS + _GRAM**2


class Mean(NamedTuple):
    """A mean over batches.

    Attributes:
        weight: What a batch counts by: its joint pairs, its marginal pairs, once, or its joint pairs as rows. As once
            or as rows, it counts only if it has pairs of both kinds.
        log: The value of a batch is a logarithm: its exponential is averaged, and the mean is again a logarithm.
        factor: The factor of the mean in the estimate.
    """

    weight: Literal["joint", "marginal", "batch", "row"]
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
    num_joint: int | Sequence[int],
    num_marginal: int | Sequence[int],
    dtype: torch.dtype,
    world_size: int | Sequence[int] = 1,
) -> Tensor:
    """The moments of batches, each by itself.

    A batch without a joint pair, or without a marginal one, is no estimate: it brings what it has to a mean over such
    pairs and nothing to another mean. One that brings nothing at all is not counted among the batches.

    Args:
        means: The means of the estimate, one or two.
        values: The values of S batches for each of them, (S,); scalars are those of one.
        num_joint: The joint pairs of each batch.
        num_marginal: The marginal pairs of each batch.
        dtype: Of the result.
        world_size: How many processes take in the same batch, so that merged they count it once.

    Returns:
        (S, K) without gradient, on the device of the values.
    """
    device, of_batch = values[0].device, {"joint": num_joint, "marginal": num_marginal}
    # Not blocking: the processor need not wait for an accelerator to take the weights.
    counts = {
        key: torch.tensor(n, dtype=dtype).reshape(-1).to(device, non_blocking=True) for key, n in of_batch.items()
    }
    counts["batch"] = ((counts["joint"] > 0) & (counts["marginal"] > 0)).to(dtype)
    counts["row"] = counts["joint"] * counts["batch"]
    one = torch.ones_like(counts["batch"])
    log_scales, u = [0 * one] * _MEANS, [0 * one] * _GRAM
    for i, (mean, value) in enumerate(zip(means, values, strict=True)):
        weight, value = counts[mean.weight], value.detach().to(dtype).reshape(-1)
        u[0] = u[0] + weight
        u[1 + 2 * i] = u[2 + 2 * i] = weight
        if mean.log:  # What weighs nothing must not decide about the common scale.
            log_scales[i] = torch.where(weight > 0, value, -torch.inf)
        else:  # A weight of 0 would turn an infinite value into NaN.
            u[2 + 2 * i] = weight * torch.where(weight > 0, value, one)
    u[0] = (u[0] > 0).to(dtype)
    units = torch.stack(u, dim=1)
    gram = units.unsqueeze(1) * units.unsqueeze(2)
    if world_size != 1:
        gram = gram / torch.tensor(world_size, dtype=dtype, device=device).reshape(-1, 1, 1)
    return torch.cat([torch.stack(log_scales, dim=1), gram.flatten(1)], dim=1)


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
