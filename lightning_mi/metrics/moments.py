r"""The state of the metrics: weighted sums over batches that merge exactly, in one vector of fixed size.

An estimate is a sum of one or two means over batches. Batch :math:`b` contributes
:math:`u_b = (1, w, w', w x, w' x')`: the weights and the weighted values of both means. For the logarithm of a mean,
:math:`x` is an exponential, in units of a common scale. The state holds the log of these scales (a running maximum)
and the sum :math:`\sum_b u_b u_b^T`: its first row gives the estimate, the rest the standard error.

Invariant: the moments of disjoint sets of batches, in any order and from any ranks, merge by rescaling to the larger
scale and adding: pairwise merging as in the source, with sums relative to a common scale instead of a common mean.

Source: Chan et al. 1983.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_mi.utilities.numerics import to_common_scale

_MEANS = 2
_U = 1 + 2 * _MEANS  # the length of u


class Mean(NamedTuple):
    """One mean over batches.

    Attributes:
        weight: A batch's weight: that of its joint pairs (``"joint"``), its number of marginal pairs (``"marginal"``),
            1 (``"batch"``), or that of its joint pairs, if it has pairs of both kinds (``"row"``). The weight
            ``"batch"``, too, is 0 unless the batch has pairs of both kinds.
        log: A batch's value is a logarithm: its exponential is averaged, and the result is a logarithm again.
        factor: The factor of the mean in the estimate.
    """

    weight: Literal["joint", "marginal", "batch", "row"]
    log: bool = False
    factor: float = 1.0


class Estimate(NamedTuple):
    """The result of :func:`~lightning_mi.metrics.functional.mutual_information`: an estimate over several batches.

    Attributes:
        value: A scalar, nats.
        standard_error: A scalar, nats, with batches as independent draws; NaN for fewer than two batches.
    """

    value: Tensor
    standard_error: Tensor


class _Moments(NamedTuple):
    """The state as named tensors, of one set of batches or, with a leading dimension, of S sets.

    Attributes:
        log_scales: (..., 2) the log-scale of the values of each mean.
        products: (..., 5, 5) the sum of u u^T.
    """

    log_scales: Tensor
    products: Tensor

    @classmethod
    def from_vector(cls, vector: Tensor) -> "_Moments":
        return cls(vector[..., :_MEANS], vector[..., _MEANS:].reshape(*vector.shape[:-1], _U, _U))

    def to_vector(self) -> Tensor:
        return torch.cat([self.log_scales, self.products.flatten(-2)], dim=-1)

    @property
    def num_batches(self) -> Tensor:
        return self.products[..., 0, 0]

    @property
    def weights(self) -> Tensor:
        """(..., 2) the sum of the weights of each mean."""
        return self.products[..., 0, 1 : 1 + _MEANS]

    @property
    def totals(self) -> Tensor:
        """(..., 2) the sum of the weighted values of each mean, in units of its scale."""
        return self.products[..., 0, 1 + _MEANS :]


def moments_dtype(device: torch.device) -> torch.dtype:
    """Float64, because the standard error squares long sums; float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def no_moments(device: torch.device) -> Tensor:
    """(K,) the moments of no batch."""
    dtype = moments_dtype(device)
    log_scales = torch.full((_MEANS,), -torch.inf, dtype=dtype, device=device)
    return _Moments(log_scales, torch.zeros(_U, _U, dtype=dtype, device=device)).to_vector()


def batch_moments(
    means: Sequence[Mean],
    values: Sequence[Tensor],
    *,
    joint_weight: float | Sequence[float],
    num_marginal: int | Sequence[int],
    dtype: torch.dtype,
    world_size: int | Sequence[int] = 1,
) -> Tensor:
    """The moments of each of S batches.

    A batch without joint pairs or without marginal pairs contributes only to means over the pairs that it has. A batch
    that contributes to no mean is not counted.

    Args:
        means: The means of the estimate, one or two.
        values: For each mean, the values of S batches, (S,); or scalars for one batch.
        joint_weight: The sum of the weights of the joint pairs of each batch; their number if all weigh the same.
        num_marginal: The number of marginal pairs of each batch.
        dtype: The dtype of the result.
        world_size: The number of ranks that add the same batch, so that the merged moments count it once.

    Returns:
        (S, K) without gradient, on the device of the values.
    """
    device = values[0].device

    def per_batch(numbers: float | Sequence[float]) -> Tensor:
        # Non-blocking: no host-device sync for the copy.
        return torch.tensor(numbers, dtype=dtype).reshape(-1).to(device, non_blocking=True)

    joint, marginal = per_batch(joint_weight), per_batch(num_marginal)
    batch = ((joint > 0) & (marginal > 0)).to(dtype)
    weight_of = {"joint": joint, "marginal": marginal, "batch": batch, "row": joint * batch}
    unused = [torch.zeros_like(joint)] * (_MEANS - len(means))
    weights, totals, log_scales = [], [], []
    for mean, value in zip(means, values, strict=True):
        weight, value = weight_of[mean.weight], value.detach().to(dtype).reshape(-1)
        weights.append(weight)
        if mean.log:  # a batch of weight 0 must not set the common scale
            log_scales.append(torch.where(weight > 0, value, -torch.inf))
            totals.append(weight)
        else:  # weight 0 times an infinite value would be NaN
            log_scales.append(torch.zeros_like(weight))
            totals.append(weight * torch.where(weight > 0, value, 1.0))
    counted = (torch.stack(weights).sum(dim=0) > 0).to(dtype)
    u = torch.stack([counted, *weights, *unused, *totals, *unused], dim=1)
    products = u.unsqueeze(1) * u.unsqueeze(2)
    if world_size != 1:
        products = products / per_batch(world_size).reshape(-1, 1, 1)
    return _Moments(torch.stack([*log_scales, *unused], dim=1), products).to_vector()


def merge_moments(vectors: Tensor) -> Tensor:
    """Merge the moments of disjoint sets of batches: of two steps, or of all ranks.

    Args:
        vectors: (S, K) the moments of S sets.

    Returns:
        (K,) the moments of all their batches.
    """
    parts = _Moments.from_vector(vectors)
    log_scales, factors = to_common_scale(parts.log_scales)
    scale = torch.cat([torch.ones_like(factors[:, :1]).expand(-1, 1 + _MEANS), factors], dim=1)
    products = parts.products * scale.unsqueeze(1) * scale.unsqueeze(2)
    return _Moments(log_scales, products.sum(dim=0)).to_vector()


def read_moments(means: Sequence[Mean], vector: Tensor) -> Estimate:
    r"""The estimate, a sum of factor times mean, with its standard error by the delta method.

    The influence of batch :math:`b` on a mean :math:`\bar x = \sum w x / \sum w` is
    :math:`w_b (x_b - \bar x) / \sum w`, and on its logarithm :math:`w_b (x_b / \bar x - 1) / \sum w`. Influences on
    both means add within a batch, because joint and marginal pairs share their samples. With B batches, the squared
    standard error is :math:`\frac{B}{B - 1}` times the sum of squared influences. It assumes that means are close to
    their expectations, so it is too small if few pairs dominate an average of exponentials.

    Args:
        means: As in :func:`batch_moments`.
        vector: (K,) the moments of all batches.
    """
    moments = _Moments.from_vector(vector)
    averages = moments.totals / moments.weights
    value = vector.new_zeros(())
    influence = [vector.new_zeros(())] * _U  # coefficients of u: the influence of a batch is their product
    for i, mean in enumerate(means):
        average = averages[i]
        value = value + mean.factor * (moments.log_scales[i] + average.log() if mean.log else average)
        slope = mean.factor / (moments.totals[i] if mean.log else moments.weights[i])
        influence[1 + i], influence[1 + _MEANS + i] = -slope * average, slope
    coefficients = torch.stack(influence)
    # Rounding can leave a variance of zero slightly negative.
    squares = (coefficients @ moments.products @ coefficients).clamp(min=0)
    standard_error = (squares * moments.num_batches / (moments.num_batches - 1)).sqrt()
    return Estimate(value, standard_error.masked_fill(moments.num_batches < 2, torch.nan))
