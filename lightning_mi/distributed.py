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


@torch.no_grad()
def gather(tensor: Tensor) -> Tensor:
    """Stack the tensors of all processes, without gradient, the same on each.

    Every process must call it with the same shape.

    Returns:
        (W, ...) for W processes.

    Example:
        >>> gather(torch.tensor([1.0, 2.0]))
        tensor([[1., 2.]])
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return tensor.unsqueeze(0)
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.stack(parts)
