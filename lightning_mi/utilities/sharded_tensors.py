"""Tensors of which each rank stores a part: ``DTensor``, as of FSDP2."""

from typing import Any, cast

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank stores only a part of a tensor.

    Example:
        >>> import torch
        >>> is_sharded(torch.zeros(2))
        False
    """
    return hasattr(tensor, "to_local")  # not isinstance: the import takes longer than a small training


def local_part(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank stores.

    Example:
        >>> import torch
        >>> local_part(torch.zeros(2))
        tensor([0., 0.])
    """
    return cast("Any", tensor).to_local() if is_sharded(tensor) else tensor
