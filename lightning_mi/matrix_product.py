"""Matrix products without autograd, by the quicker of two libraries."""

from typing import cast

import torch
from torch import Tensor

# The operator that torch.compile puts in the place of a linear layer.
_OPERATOR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch._C._has_mkldnn else None
_LINEAR = None if _OPERATOR is None else _OPERATOR.default
WORTH_IT = 2**20  # multiplications, below which the call costs more than it saves
_TALL = 2**10  # rows of two factors from which on such a convolution is faster than their product
_NARROWEST = 16  # columns of a factor, below which it is not
_PARTS, _ROWS_OF_PART = 16, 256  # of a convolution: the fewest images for which torch asks oneDNN, rows of long ones
_HAS_AVX512 = torch._C._has_mkldnn and torch.backends.cpu.get_cpu_capability() == "AVX512"  # slower than MKL without


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

    oneDNN copies both factors of a product whose first one is transposed. A convolution of one pixel has the same
    gradient, and oneDNN makes that without copies, so tall factors pass for images.

    Example:
        >>> weight_gradient(torch.ones(3, 2), torch.ones(3, 1))
        tensor([[3.],
                [3.]])
    """
    (rows, outputs), inputs = upstream.shape, x.shape[1]
    if not (_HAS_AVX512 and rows >= _TALL and min(outputs, inputs) >= _NARROWEST and _by_onednn(upstream.T, x)):
        return matrix_product(upstream.T, x)
    images = max(_PARTS, rows // _ROWS_OF_PART)
    pixels = rows // images
    height = images * pixels
    factors = (one[:height].reshape(images, pixels, 1, -1).permute(0, 3, 1, 2) for one in (upstream, x))
    kernel = x.new_empty(outputs, inputs, 1, 1)  # only its shape is asked for
    gradients = torch.ops.aten.convolution_backward(
        *factors, kernel, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
    )
    gradient: Tensor = gradients[1].view(outputs, inputs)
    return gradient if height == rows else gradient.addmm_(upstream[height:].T, x[height:])


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    return (
        a.numel() * b.shape[1] >= WORTH_IT
        and a.is_cpu
        and a.dtype == b.dtype == torch.float32
        and _is_dense(a)
        and _is_dense(b)
    )


def _is_dense(matrix: Tensor) -> bool:  # oneDNN goes through views with gaps at a hundredth of its speed.
    strides, (height, width) = matrix.stride(), matrix.shape
    return strides in ((width, 1), (1, height))
