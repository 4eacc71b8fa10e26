"""Exponentials and logarithms of scores: the only module that writes them.

Every function works in float32 or wider, whatever the autocast state (see :func:`upcast` and :func:`full_precision`),
and stays in log space until a linear quantity is needed.
"""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

_FINITE_CHECKS: ContextVar[bool] = ContextVar("finite_checks", default=True)


@contextlib.contextmanager
def disable_finite_checks() -> Iterator[None]:
    """Context manager: disables the finiteness checks of bounds and regularizers; the caller checks.

    Each check is a host-device sync. A training step needs one sync for all of its tensors.

    Example:
        >>> with disable_finite_checks():
        ...     finite_checks_enabled()
        False
    """
    token = _FINITE_CHECKS.set(False)
    try:
        yield
    finally:
        _FINITE_CHECKS.reset(token)


def finite_checks_enabled() -> bool:
    """Whether bounds and regularizers check their results for NaN and infinity; False under ``torch.compile``.

    Example:
        >>> finite_checks_enabled()
        True
    """
    return not torch.compiler.is_compiling() and _FINITE_CHECKS.get()


def upcast(tensor: Tensor) -> Tensor:
    """Convert to float32; a float64 tensor is returned unchanged.

    Example:
        >>> upcast(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def full_precision(device_type: str) -> contextlib.AbstractContextManager[object]:
    """Context manager: disables autocast, so that operations keep the precision of their inputs.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), full_precision("cpu"):
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.float32
    """
    # torch.autocast raises for devices without autocast, such as "meta", even if it is not enabled.
    enabled = torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if enabled else contextlib.nullcontext()


def log_mean_exp(
    x: Tensor,
    mask: Tensor | None = None,
    *,
    count: Tensor | int,
    dim: int | None = None,
    log_weights: Tensor | None = None,
) -> Tensor:
    r"""Log of the mean of ``exp(x)`` over the entries where ``mask`` is True.

    Computes :math:`\log \frac{1}{n} \sum_i w_i e^{x_i}` by log-sum-exp: the maximum is subtracted before the
    exponential, so nothing overflows for finite ``x``. The gradient is the softmax of ``x`` over the masked entries, to
    full precision wherever ``x`` lies, and exactly 0 elsewhere.

    Args:
        x: Any shape.
        mask: Boolean, the shape of ``x``. All entries by default.
        count: n, or one n for each slice along ``dim``.
        dim: The dimension to reduce; all by default.
        log_weights: Logarithms of the weights w, of a shape that broadcasts to that of ``x``; not normalized. Equal to
            0 by default.

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
    """Exponentials that cannot overflow: exp(x) is ``values * exp(anchor)``.

    Attributes:
        values: The shape of x; at most 1, times a weight.
        anchor: The maximum of x, of size 1 along the dimensions to reduce.
        dims: The dimensions to reduce.
    """

    values: Tensor
    anchor: Tensor
    dims: list[int]

    def detached(self) -> "AnchoredExp":
        """The same numbers without autograd graph."""
        return self._replace(values=self.values.detach())

    def squared(self) -> "AnchoredExp":
        """exp(2 x)."""
        return self._replace(values=self.values.square(), anchor=2 * self.anchor)


def anchored_exp(x: Tensor, dim: int | None = None, log_weights: Tensor | None = None) -> AnchoredExp:
    """exp(x), times weights, relative to the exponential of the maximum; arguments as in :func:`log_mean_exp`.

    Example:
        >>> anchored_exp(torch.tensor([1e4, 1e4])).values
        tensor([1., 1.])
    """
    dims = list(range(x.ndim)) if dim is None else [dim]
    # Not torch.logsumexp: its gradient is exp(x - logsumexp(x)), where the rounding error of logsumexp(x) scales the
    # softmax if x is far from 0 (by 5e-4 at 1e4 in float32, by n at 1e30).
    maximum = (x if log_weights is None else x + log_weights).detach().amax(dims, keepdim=True)
    largest = torch.finfo(x.dtype).max
    anchor = maximum.clamp(-largest, largest)  # inf - inf would be NaN
    shifted = x - anchor
    if log_weights is not None:  # after the subtraction: a large x would round them away
        shifted = shifted + log_weights
    return AnchoredExp(shifted.exp(), anchor, dims)


def log_mean(exponentials: AnchoredExp, count: Tensor | int) -> Tensor:
    """Log of the sum of exponentials divided by ``count``.

    Example:
        >>> log_mean(anchored_exp(torch.tensor([1e4, 1e4])), count=2)
        tensor(10000.)
    """
    total = exponentials.values.sum(exponentials.dims)
    log_count = math.log(count) if isinstance(count, int) else count.to(total.dtype).log()
    return total.log() + (exponentials.anchor.reshape(total.shape) - log_count)


class RowSoftmax(NamedTuple):
    """Softmax of each row, and the row's sum of exponentials as ``total * exp(maximum)``, which cannot overflow.

    Attributes:
        weights: (N, M) exp(x) divided by its row's sum.
        maximum: (N,) the maximum of each row; -inf if all entries are -inf.
        total: (N,) the sum of exp(x - maximum); 0 if all entries are -inf.
    """

    weights: Tensor
    maximum: Tensor
    total: Tensor


def row_softmax(x: Tensor, out: Tensor) -> RowSoftmax:
    """Softmax of each row of ``x`` (N, M), written to ``out``, without gradient.

    Example:
        >>> row_softmax(torch.zeros(1, 2), torch.empty(1, 2))
        RowSoftmax(weights=tensor([[0.5000, 0.5000]]), maximum=tensor([0.]), total=tensor([2.]))
    """
    maximum = x.amax(dim=1)
    torch.softmax(x, dim=1, out=out)
    empty = maximum == -math.inf
    out.masked_fill_(empty.unsqueeze(1), 0.0)
    total = (1 / out.amax(dim=1)).masked_fill(empty, 0.0)  # the largest weight is exp(0) / total
    return RowSoftmax(out, maximum, total.masked_fill(maximum == math.inf, 1.0))


def shifted_exp(x: Tensor, anchor: Tensor, out: Tensor | None = None) -> Tensor:
    """exp(x - anchor), written to ``out`` or a new tensor, without gradient; an infinite anchor counts as 0.

    Example:
        >>> shifted_exp(torch.tensor([1e4, -math.inf]), torch.tensor(1e4))
        tensor([1., 0.])
    """
    return torch.sub(x, anchor.masked_fill(anchor.isinf(), 0.0), out=out).exp_()  # inf - inf would be NaN


def exp_linear(x: Tensor, cap: float | None) -> Tensor:
    r"""Exponential, continued linearly above ``cap``: :math:`e^x` for x <= cap, else :math:`e^{cap}(1 + x - cap)`.

    Convex, increasing, continuously differentiable and never above :math:`e^x`. The gradient is at most
    :math:`e^{cap}`, so it cannot overflow. ``cap=None`` gives the literal exponential.

    Example:
        >>> exp_linear(torch.tensor([0.0, 101.0]), cap=1.0)
        tensor([  1.0000, 274.5464])
    """
    if cap is None:
        return x.exp()
    # masked_fill, not clamp: the gradient of clamp at the cap itself is 0, and with cap=0 the optimum lies there.
    return x.masked_fill(x > cap, cap).exp() * (1 + (x - cap).relu())


def log_sub_exp(x: Tensor, y: Tensor, low: float) -> Tensor:
    r"""Log of :math:`e^x - e^y`, at least ``low``, where the gradient is 0; also for a negative difference.

    Precise where the difference is small compared with its terms. NaN gives NaN.

    Example:
        >>> log_sub_exp(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0]), low=-2.0)
        tensor([ 1.5413, -2.0000])
    """
    gap = y - x
    with torch.no_grad():
        clamped = (gap >= 0) | (x + torch.log(-torch.expm1(gap)) < low)
    # Not torch.where on the result: the gradient of the branch that is not taken would be 0 times infinity.
    gap = gap.masked_fill(clamped, -1.0)
    return (x + torch.log(-torch.expm1(gap))).masked_fill(clamped, low)


def squared_sigmoid(x: Tensor) -> Tensor:
    """Square of the logistic function. Its gradient is precise where the logistic function rounds to 1.

    Example:
        >>> squared_sigmoid(torch.tensor([0.0, 100.0]))
        tensor([0.2500, 1.0000])
    """
    return (2 * logsigmoid(x)).exp()  # autograd of sigmoid(x)^2 multiplies by 1 - sigmoid(x), which rounds to 0


def clip_smoothly(x: Tensor, low: float, high: float) -> Tensor:
    r"""The identity from ``low`` to ``high``, continued to a limit one unit beyond: high + u / (1 + u), u = x - high.

    Continuously differentiable. Outside, the slope falls as :math:`1 / (1 + u)^2`, and not exponentially as that of
    tanh, so a far value can come back.

    Example:
        >>> clip_smoothly(torch.tensor([-9.0, 0.5, 3.0]), -2.0, 2.0)
        tensor([-2.8750,  0.5000,  2.5000])
    """
    inside = x.clamp(low, high)
    beyond = x - inside
    return inside + beyond / (1 + beyond.abs())


def log_ema(average: Tensor, new: Tensor, rate: float) -> Tensor:
    """One step of an exponential moving average in log space: log((1 - rate) exp(average) + rate exp(new)).

    Example:
        >>> log_ema(torch.tensor(1e4), torch.tensor(1e4), rate=0.01)
        tensor(10000.)
    """
    return torch.logaddexp(average + math.log1p(-rate), new + math.log(rate))


def to_common_scale(log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """Common log-scale of sums in units of exp(log_scale), and the factors that convert each sum to it.

    This is the rescaling step of an online log-sum-exp (Milakov and Gimelshein 2018). The common log-scale is the
    maximum, so every factor is at most 1 and no exponential overflows. An empty sum has the log-scale -inf and gets the
    factor 0.

    Args:
        log_scales: (S, ...) the log-scales of S sums.

    Returns:
        The common log-scale, (...), and the factors, (S, ...).

    Example:
        >>> to_common_scale(torch.tensor([1e4, 1e4, -math.inf]))
        (tensor(10000.), tensor([1., 1., 0.]))
    """
    maximum = log_scales.amax(dim=0)
    anchor = maximum.masked_fill(maximum.isinf(), 0.0)  # inf - inf would be NaN
    return maximum, (log_scales - anchor).exp()
