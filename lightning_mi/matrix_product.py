"""Matrix products of tiles, without autograd, by the quicker of two libraries."""

import torch
from torch import Tensor

_WORTH_IT = 2**20  # multiplications, below which the call costs more than it saves


def matrix_product(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) a @ b of (N, K) and (K, M), without gradient.

    On a CPU torch multiplies float32 matrices by MKL, which leaves half of the speed of an AMD processor with AVX-512
    unused. oneDNN, which torch comes with too, does not, and held to AVX2 it was as fast as MKL.

    Example:
        >>> matrix_product(torch.ones(2, 3), torch.ones(3, 1))
        tensor([[3.],
                [3.]])
    """
    if not _by_onednn(a, b):
        return a @ b
    # The operator that torch.compile puts in the place of a linear layer.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return product


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    return (
        a.dtype == b.dtype == torch.float32
        and a.device.type == "cpu"
        and a.numel() * b.shape[1] >= _WORTH_IT
        and _is_dense(a)
        and _is_dense(b)
        and torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _is_dense(matrix: Tensor) -> bool:  # oneDNN goes through views with gaps at a hundredth of its speed.
    return matrix.is_contiguous() or matrix.T.is_contiguous()
