"""Matrix products without autograd, by the quicker of two libraries."""

from typing import cast

import torch
from torch import Tensor

# The operator that torch.compile puts in the place of a linear layer.
_OPERATOR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch._C._has_mkldnn else None
_LINEAR = None if _OPERATOR is None else _OPERATOR.default
_OF_WEIGHT = getattr(torch.ops.aten, "mkldnn_linear_backward_weights", None) if torch._C._has_mkldnn else None
WORTH_IT = 2**20  # multiplications, below which the call costs more than it saves
_TALL, _WIDE = 2048, 64  # rows and columns from which on the transposed copies of a product cost more than plain ones


def matrix_product(a: Tensor, b: Tensor, bias: Tensor | None = None, rectify: bool = False) -> Tensor:
    """(N, M) a @ b + bias of (N, K), (K, M) and (M,), rectified if one says so; without gradient.

    On a CPU torch multiplies float32 matrices by MKL, which leaves half of the speed of an AMD processor with AVX-512
    unused. oneDNN, which torch comes with too, does not, and held to AVX2 it was as fast as MKL.

    Example:
        >>> matrix_product(torch.ones(2, 3), torch.ones(3, 1))
        tensor([[3.],
                [3.]])
    """
    if _LINEAR is None or not _by_onednn(a, b):
        product = a @ b if bias is None else torch.addmm(bias, a, b)
        return product.relu_() if rectify else product
    return cast("Tensor", _LINEAR(a, b.T, bias, "relu" if rectify else "none", [], ""))


def weight_gradient(upstream: Tensor, x: Tensor) -> Tensor:
    """(O, H) upstream.T @ x of (K, O) and (K, H), the gradient of a linear layer's weight; without gradient.

    Tall factors go to the operator that oneDNN has for it: it reads them as they lie.

    Example:
        >>> weight_gradient(torch.ones(3, 2), torch.ones(3, 1))
        tensor([[3.],
                [3.]])
    """
    is_tall = len(x) >= _TALL and min(upstream.shape[1], x.shape[1]) >= _WIDE
    if _OF_WEIGHT is None or not is_tall or not _by_onednn(upstream.T, x):
        return matrix_product(upstream.T, x)
    gradient = upstream.new_zeros(upstream.shape[1], x.shape[1])
    # In parts whose copies find memory at hand: larger ones, which the system has to map, would cost what is gained.
    for rows, inputs in zip(torch.split(upstream, _TALL), torch.split(x, _TALL), strict=True):
        gradient += _OF_WEIGHT(rows.to_mkldnn(), inputs.to_mkldnn(), rows, False)[0]
    return gradient


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    return (
        a.numel() * b.shape[1] >= WORTH_IT
        and a.dtype == b.dtype == torch.float32
        and a.device.type == "cpu"
        and _is_dense(a)
        and _is_dense(b)
    )


def _is_dense(matrix: Tensor) -> bool:  # oneDNN goes through views with gaps at a hundredth of its speed.
    strides, (height, width) = matrix.stride(), matrix.shape
    return strides in ((width, 1), (1, height))
