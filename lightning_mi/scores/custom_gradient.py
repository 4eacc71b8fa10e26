"""Attach a custom backward to a precomputed value."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mi._compat.torch_names import is_forward_mode_active, is_functorch_active, is_tracing
from lightning_mi.exceptions import DoubleBackwardError
from lightning_mi.utilities.numerics import upcast

# Maps grad_output of each zero to the gradient of each input. Some, but not all, grad_output may be None.
Backward = Callable[[Sequence[Tensor | None]], Sequence[Tensor | None]]


def needs_plain_autograd() -> bool:
    """True under ``torch.func``, forward-mode AD, compile, export or tracing, where a custom backward is unsupported.

    Example:
        >>> needs_plain_autograd(), torch.func.grad(lambda x: x * needs_plain_autograd())(torch.tensor(3.0))
        (False, tensor(1.))
    """
    return torch.compiler.is_compiling() or is_tracing() or is_functorch_active() or is_forward_mode_active()


def zeros_with_gradient(
    backward: Backward, inputs: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], like: Tensor
) -> tuple[Tensor, ...]:
    """Zeros with a custom backward: a precomputed value plus such a zero is a differentiable function of the inputs.

    Args:
        backward: Returns the gradients of the inputs.
        inputs: The tensors to differentiate with respect to.
        shapes: One shape for each zero.
        like: Has the device and the dtype of the zeros; the dtype is upcast to float32 or wider.

    Raises:
        DoubleBackwardError: In backward, with ``create_graph=True``.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> (zero,) = zeros_with_gradient(lambda grad_output: [2 * x.detach() * grad_output[0]], [x], [()], x)
        >>> square = x.detach() ** 2 + zero
        >>> torch.autograd.grad(square, x)
        (tensor(6.),)
    """
    zeros: tuple[Tensor, ...] = _CustomBackward.apply(backward, shapes, like.detach(), *inputs)
    return zeros


class _CustomBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, backward: Backward, shapes: Sequence[tuple[int, ...]], like: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.custom_backward, ctx.dtypes = backward, [tensor.dtype for tensor in inputs]
        ctx.set_materialize_grads(False)
        return tuple(upcast(like).new_zeros(shape) for shape in shapes)

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise DoubleBackwardError(
                "Got create_graph=True (as for a gradient penalty): double backward is not supported for tiled scores. "
                "Keep all scores: gather=True and tile_bytes=math.inf, arguments of the pairing."
            )
        if all(grad is None for grad in grad_output):
            return None, None, None, *(None for _ in ctx.dtypes)
        grads = zip(ctx.custom_backward(grad_output), ctx.dtypes, strict=True)
        return None, None, None, *(None if grad is None else grad.to(dtype) for grad, dtype in grads)
