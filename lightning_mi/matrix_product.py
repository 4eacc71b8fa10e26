"""Matrix products without autograd, by the quicker of two libraries."""

from typing import cast

import torch
from torch import Tensor

# The operator that torch.compile puts in the place of a linear layer.
_OPERATOR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch._C._has_mkldnn else None
_LINEAR = None if _OPERATOR is None else _OPERATOR.default
WORTH_IT = 2**20  # multiplications, below which the call costs more than it saves
_COPIED = 2**17  # numbers of a factor whose transposed copy stays in the cache, half a megabyte of them
_WIDE = 64  # columns of both factors from which on such copies are what a tall product spends its time on


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

    oneDNN copies both factors transposed, so tall ones are multiplied in parts whose copies are small.

    Example:
        >>> weight_gradient(torch.ones(3, 2), torch.ones(3, 1))
        tensor([[3.],
                [3.]])
    """
    widths = upstream.shape[1], x.shape[1]
    rows = _COPIED // max(widths)
    if not (0 < rows < len(x)) or min(widths) < _WIDE or not _by_onednn(upstream.T, x):
        return matrix_product(upstream.T, x)
    gradient = upstream.new_zeros(widths)
    for part, of in zip(torch.split(upstream, rows), torch.split(x, rows), strict=True):
        gradient += matrix_product(part.T, of)
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
