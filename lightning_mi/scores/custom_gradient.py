"""Gradients computed by hand: where they can be, and zeros to add to a value so that autograd asks for them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lightning_mi.exceptions import DoubleBackwardError
from lightning_mi.utilities.numerics import upcast

# From the upstream gradient of each zero, None where there is none, to the gradient of each input; one there is.
Backward = Callable[[Sequence[Tensor | None]], Sequence[Tensor | None]]


def needs_plain_autograd() -> bool:
    """Whether torch must see each operation, and no gradient can be made by hand.

    So it is under its function transforms (``torch.func``, vmap), in forward-mode differentiation, and while it
    compiles, exports or traces.

    Example:
        >>> needs_plain_autograd(), torch.func.grad(lambda x: x * needs_plain_autograd())(torch.tensor(3.0))
        (False, tensor(1.))
    """
    return (
        torch._C._are_functorch_transforms_active()
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
    )


def zeros_with_gradient(
    backward: Backward, inputs: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], like: Tensor
) -> tuple[Tensor, ...]:
    """Zeros that have a gradient with respect to the inputs: a value plus such a zero is a function of them.

    Args:
        backward: Gives it.
        inputs: What the gradient is with respect to.
        shapes: Of the zeros.
        like: Tells their device, and their type, which is float32 or wider.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> (zero,) = zeros_with_gradient(lambda upstream: [2 * x.detach() * upstream[0]], [x], [()], x)
        >>> square = x.detach() ** 2 + zero
        >>> torch.autograd.grad(square, x)
        (tensor(6.),)
    """
    zeros: tuple[Tensor, ...] = _Deferred.apply(backward, shapes, like.detach(), *inputs)
    return zeros


class _Deferred(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, backward: Backward, shapes: Sequence[tuple[int, ...]], like: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.compute, ctx.types = backward, [one.dtype for one in inputs]
        ctx.set_materialize_grads(False)
        return tuple(upcast(like).new_zeros(shape) for shape in shapes)

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise DoubleBackwardError(
                "A gradient is to be differentiated again (create_graph=True, as for a gradient penalty), but the "
                "scores were made in tiles, whose gradient is computed by hand and only once. Keep all scores: "
                "tile_bytes=math.inf, an argument of the pairing and of Scores.from_columns."
            )
        # Autograd may come with no gradient at all, which is one of zero.
        gradients = ctx.compute(grad_output) if any(one is not None for one in grad_output) else [None] * len(ctx.types)
        types = zip(gradients, ctx.types, strict=True)
        return None, None, None, *(None if one is None else one.to(dtype) for one, dtype in types)
