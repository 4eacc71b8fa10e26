"""Messages between neighboring ranks of the default process group."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from lightning_mi.utilities.distributed import get_rank, world_size


@torch.no_grad()
def pass_on(tensors: Sequence[Tensor], num_rows: int) -> Callable[[], list[Tensor]]:
    """Send tensors to the next rank and receive the tensors of the previous rank, point to point and without gradient.

    Every rank must call it, with tensors that differ in their number of rows only. Rank W - 1 sends to rank 0.

    Args:
        tensors: (K, ...) each; they must not change until the result is there.
        num_rows: The number of rows that the previous rank sends.

    Returns:
        A function that waits, and returns the received tensors, (num_rows, ...) each.

    Example:
        >>> pass_on([torch.tensor([1.0, 2.0])], num_rows=2)()
        [tensor([1., 2.])]
    """
    if world_size() == 1:
        return lambda: list(tensors)
    rank, size = get_rank(), world_size()
    tensors = [tensor.contiguous() for tensor in tensors]
    received = [tensor.new_empty(num_rows, *tensor.shape[1:]) for tensor in tensors]
    transfers = [
        dist.P2POp(operation, tensor, peer % size, tag=tag)
        for tag, pair in enumerate(zip(tensors, received, strict=True))
        for operation, tensor, peer in zip((dist.isend, dist.irecv), pair, (rank + 1, rank - 1), strict=True)
        if tensor.numel()  # both sides know the number of rows
    ]
    pending = dist.batch_isend_irecv(transfers) if transfers else []

    def wait() -> list[Tensor]:
        for transfer in pending:
            transfer.wait()
        return received

    return wait
