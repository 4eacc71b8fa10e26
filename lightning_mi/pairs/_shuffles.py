"""Random permutations of the samples of one rank."""

import torch
from torch import Tensor

from lightning_mi.utilities.distributed import rank_generator


def random_cycle(num_samples: int, device: torch.device) -> Tensor:
    """(N,) a random permutation of one cycle, which has no fixed point if N is at least 2.

    Example:
        >>> random_cycle(2, torch.device("cpu"))
        tensor([1, 0])
    """
    order = torch.randperm(num_samples, device=device, generator=rank_generator(device))
    shuffle = torch.empty_like(order)
    shuffle[order] = order.roll(1)
    return shuffle


def random_cycles(labels: Tensor) -> Tensor:
    """(N,) a random permutation of one cycle in each class, so that only samples alone in theirs are fixed points.

    Example:
        >>> random_cycles(torch.tensor([5, 3, 5, 0]))
        tensor([2, 1, 0, 3])
    """
    order = torch.randperm(len(labels), device=labels.device, generator=rank_generator(labels.device))
    order = order[labels[order].argsort(stable=True)]  # class by class, in random order within each
    _, counts = torch.unique(labels, return_counts=True)  # sorted, as the classes are
    ends = counts.cumsum(0)
    previous = order.roll(1)
    previous[ends - counts] = order[ends - 1]  # the first of a class follows its last
    shuffle = torch.empty_like(order)
    shuffle[order] = previous
    return shuffle
