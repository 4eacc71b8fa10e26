"""Collectives: the only place where processes talk to each other."""

import torch
from torch import Tensor
from torch import distributed as dist


@torch.no_grad()
def average_(tensor: Tensor) -> Tensor:
    """Replace a tensor by its mean over all processes, in place and without gradient; alone, it stays as it is.

    Every process must call it with the same shape.

    Example:
        >>> average_(torch.tensor(2.0))
        tensor(2.)
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return tensor
