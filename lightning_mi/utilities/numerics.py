"""Exponentials and logarithms of scores: the only place where they are written.

Everything here works in float32 or wider, whatever the autocast state (use :func:`upcast` and :func:`full_precision`),
and stays in log space until a mathematically linear quantity is asked for.
"""

import contextlib
import math
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

_NO_CONTEXT = contextlib.nullcontext()
_LOOKS: ContextVar[bool] = ContextVar("looks", default=True)


class checked_later:  # used as a function; the generator of one would cost a hundredth of a small step
    """Within, bounds and regularizers do not look whether what they give is finite: who calls them does.

    A look waits for the device, which a training step does once, for all that it made.
    """

    def __enter__(self) -> None:
        self._token = _LOOKS.set(False)

    def __exit__(self, *exception: object) -> None:
        _LOOKS.reset(self._token)


def checked_now() -> bool:
    """Whether bounds and regularizers look; compiled, they do not.

    Example:
        >>> with checked_later():
        ...     checked_now()
        False
    """
    return not torch.compiler.is_compiling() and _LOOKS.get()


def upcast(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in float32, or untouched if it is float64 already.

    Example:
        >>> upcast(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def full_precision(device_type: str) -> contextlib.AbstractContextManager[object]:
    """Leave autocast, so that what is called here, such as a learned baseline, keeps the precision of its inputs."""
    # A context that changes nothing costs as much as a small bound's whole arithmetic.
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else _NO_CONTEXT


def log_mean_exp(
    x: Tensor,
    mask: Tensor | None = None,
    *,
    count: Tensor | int,
    dim: int | None = None,
    log_weights: Tensor | None = None,
) -> Tensor:
    """Log of the mean of ``exp(x)`` over the entries that ``mask`` keeps.

    The maximum is subtracted before the exponential (log-sum-exp), so nothing overflows for finite ``x``. The gradient
    is the softmax of ``x`` over the kept entries, to full precision wherever ``x`` lies, and exactly 0 elsewhere.

    Args:
        x: Any shape.
        mask: Boolean, the shape of ``x``: True where an entry counts. All count by default.
        count: The number of entries averaged over, or one such number for each slice along ``dim``.
        dim: The dimension to reduce; all by default.
        log_weights: Logarithms of what ``exp(x)`` is multiplied with, of a shape that broadcasts to that of ``x``. They
            are not normalized.

    Returns:
        A scalar, or ``x`` without dimension ``dim``.

    Example:
        >>> log_mean_exp(torch.tensor([1e4, 1e4]), count=2)
        tensor(10000.)
    """
    if mask is not None:
        x = x.masked_fill(~mask, -math.inf)
    return log_mean(anchored_exp(x, dim, log_weights), count)


class AnchoredExp(NamedTuple):
    """Exponentials in a unit in which none overflows: of ``x``, they are ``values * exp(anchor)``.

    Attributes:
        values: Of the shape of ``x``; at most 1, times a weight.
        anchor: Scalars in the unit's place; of size 1 along the dimensions that are reduced.
        dims: These.
    """

    values: Tensor
    anchor: Tensor
    dims: list[int]

    def squared(self) -> "AnchoredExp":
        """Their squares."""
        return AnchoredExp(self.values.square(), 2 * self.anchor, self.dims)


def anchored_exp(x: Tensor, dim: int | None = None, log_weights: Tensor | None = None) -> AnchoredExp:
    """exp(x), as :func:`log_mean_exp` takes them; the arguments are its.

    Example:
        >>> anchored_exp(torch.tensor([1e4, 1e4])).values
        tensor([1., 1.])
    """
    dims = list(range(x.ndim)) if dim is None else [dim]
    # Autograd takes the softmax of torch.logsumexp to be exp(x - logsumexp(x)): far from 0, the rounding of the latter
    # would scale it (by 5e-4 at 1e4 in float32, by the count at 1e30).
    highest = (x if log_weights is None else x + log_weights).detach().amax(dims, keepdim=True)
    largest = torch.finfo(x.dtype).max
    anchor = highest.clamp(-largest, largest)  # An infinite one would make inf - inf.
    shifted = x - anchor
    if log_weights is not None:  # Only now: added to a large x, they would be rounded away.
        shifted = shifted + log_weights
    return AnchoredExp(shifted.exp(), anchor, dims)


def log_mean(exponentials: AnchoredExp, count: Tensor | int) -> Tensor:
    """Log of their sum over ``count``.

    Example:
        >>> log_mean(anchored_exp(torch.tensor([1e4, 1e4])), count=2)
        tensor(10000.)
    """
    values, anchor, dims = exponentials
    total = values.sum(dims)
    log_count = math.log(count) if isinstance(count, int) else count.to(total.dtype).log()
    return total.log() + (anchor.reshape(total.shape) - log_count)


class RowSoftmax(NamedTuple):
    """The softmax of each row, with the exponentials' sum as ``total * exp(largest)``: no row overflows it.

    Attributes:
        weights: (N, M) exp(x) over its row's sum.
        largest: (N,) the highest entry of each row; -inf where every entry is.
        total: (N,) the sum of exp(x - largest); 0 where every entry is -inf.
    """

    weights: Tensor
    largest: Tensor
    total: Tensor


def row_softmax(x: Tensor, out: Tensor) -> RowSoftmax:
    """Softmax over each row of ``x`` (N, M), written to ``out``, without gradient.

    Example:
        >>> row_softmax(torch.zeros(1, 2), torch.empty(1, 2))
        RowSoftmax(weights=tensor([[0.5000, 0.5000]]), largest=tensor([0.]), total=tensor([2.]))
    """
    largest = x.amax(dim=1)
    torch.softmax(x, dim=1, out=out)
    empty = largest == -math.inf
    out.masked_fill_(empty.unsqueeze(1), 0.0)
    total = (1 / out.amax(dim=1)).masked_fill(empty, 0.0)  # The highest weight is 1 over it.
    return RowSoftmax(out, largest, total.masked_fill(largest == math.inf, 1.0))


def shifted_exp(x: Tensor, anchor: Tensor, out: Tensor | None = None) -> Tensor:
    """exp(x - anchor), in ``out`` or new, without gradient; an infinite anchor counts as 0, as inf - inf has no value.

    Example:
        >>> shifted_exp(torch.tensor([1e4, -math.inf]), torch.tensor(1e4))
        tensor([1., 0.])
    """
    return torch.sub(x, anchor.masked_fill(anchor.isinf(), 0.0), out=out).exp_()


def softplus_sum(x: Tensor) -> Tensor:
    r"""The sum of log(1 + exp(x)) over (N, M) entries: a scalar, without gradient. Minus infinity counts as 0.

    Its logarithms are taken of products of at most 32 numbers in [1, 2], which no type's range ends below: a logarithm
    costs ten times what an exponential does. Each term has the absolute precision of numbers near 1.

    Example:
        >>> softplus_sum(torch.zeros(2, 3))  # 6 log 2
        tensor(4.1589)
    """
    factors = x.abs().neg_().exp_().add_(1)
    for _ in range(5):
        half, odd = divmod(factors.shape[1], 2)
        product = factors[:, :half] * factors[:, half : 2 * half]
        factors = torch.cat([product, factors[:, -1:]], dim=1) if odd else product
    return factors.log_().sum() + x.clamp(min=0).sum()


def mean_or_zero(x: Tensor) -> Tensor:
    """The mean of all entries; of none it is 0, with a zero gradient, where ``x.mean()`` would be NaN.

    Example:
        >>> mean_or_zero(torch.tensor([1.0, 2.0])), mean_or_zero(torch.tensor([]))
        (tensor(1.5000), tensor(0.))
    """
    return x.mean() if x.numel() else x.sum()


def exp_linear(x: Tensor, cap: float | None) -> Tensor:
    r"""The exponential, continued linearly above ``cap``: :math:`e^x` for x <= cap, else :math:`e^{cap}(1 + x - cap)`.

    Convex, increasing and continuously differentiable, never above :math:`e^x`; its gradient is at most
    :math:`e^{cap}`, so it cannot overflow. ``cap=None`` is the plain exponential.

    Example:
        >>> exp_linear(torch.tensor([0.0, 101.0]), cap=1.0)
        tensor([  1.0000, 274.5464])
    """
    if cap is None:
        return x.exp()
    # Not clamp, whose gradient is 0 at the cap itself: with a cap of 0, at the optimum.
    return x.masked_fill(x > cap, cap).exp() * (1 + (x - cap).relu())


def log_ema(average: Tensor, new: Tensor, rate: float) -> Tensor:
    """One step of an exponential moving average whose terms are given, and kept, as logarithms.

    Returns log((1 - rate) exp(average) + rate exp(new)).

    Example:
        >>> log_ema(torch.tensor(1e4), torch.tensor(1e4), rate=0.01)
        tensor(10000.)
    """
    return torch.logaddexp(average + math.log1p(-rate), new + math.log(rate))


def to_common_scale(log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """Bring sums that are kept in units of exp(log_scale) to one unit: the step of a streaming log-sum-exp.

    The unit is the largest one, so every factor is at most 1 and no exponential overflows. A log-scale of -inf, a sum
    of nothing, gets the factor 0.

    Args:
        log_scales: (S, ...) the log-scales of S sums.

    Returns:
        The common log-scale, (...), and the factors that the sums are multiplied with, (S, ...).

    Example:
        >>> to_common_scale(torch.tensor([1e4, 1e4, -math.inf]))
        (tensor(10000.), tensor([1., 1., 0.]))
    """
    largest = log_scales.amax(dim=0)
    # Where it is infinite, a difference to it would be inf - inf.
    anchor = largest.masked_fill(largest.isinf(), 0.0)
    return largest, (log_scales - anchor).exp()
