"""Parameters sharded over ranks: FSDP2, by Lightning's ``ModelParallelStrategy``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as L
from torch import nn

from lightning_mi.exceptions import ShardingError
from lightning_mi.utilities.distributed import average_gradients_, broadcast_
from lightning_mi.utilities.sharded_tensors import is_sharded

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

# Strategies that keep gradients where the checks of a step do not see them, and that were never run with this package.
_UNSUPPORTED = ("DeepSpeedStrategy", "FSDPStrategy")


def shard_encoders(encoders: nn.ModuleList, others: nn.Module, mesh: DeviceMesh | None) -> None:
    """Shard the parameters of each encoder over the data-parallel ranks, once; without a mesh do nothing.

    All ranks start from the weights of rank 0. Critic, bound and probe stay whole on every rank: a critic is called by
    methods, and its parameters are read again in backward, where FSDP has freed them.

    Args:
        encoders: The encoders; each is one unit of FSDP. Inner units, such as the blocks of a transformer, may be
            sharded before.
        others: The module with the parameters that stay whole.
        mesh: The device mesh of ``ModelParallelStrategy``.

    Raises:
        ShardingError: The mesh has more than one tensor-parallel rank.

    Example:
        >>> shard_encoders(nn.ModuleList([nn.Linear(2, 2)]), nn.Module(), None)
    """
    if mesh is None:
        return
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if (size := mesh["tensor_parallel"].size()) > 1:
        raise ShardingError(
            f"Got tensor_parallel_size={size}: ranks that share a batch would pair its samples {size} times. Use "
            f"ModelParallelStrategy(data_parallel_size={mesh.size()}, tensor_parallel_size=1)."
        )
    pending = [encoder for encoder in encoders if not isinstance(encoder, FSDPModule)]
    whole = [tensor for part in (*pending, others) for tensor in (*part.parameters(), *part.buffers())]
    broadcast_([tensor.detach() for tensor in whole if not (is_sharded(tensor) or tensor.is_meta)])
    for encoder in pending:
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            fully_shard(encoder, mesh=mesh["data_parallel"])


def average_whole_(module: nn.Module) -> None:
    """If parameters are sharded, average the gradients of the others over ranks, as FSDP does for its own.

    Every rank must call it, once for each step of the optimizer.
    """
    parameters = list(module.parameters())
    if any(map(is_sharded, parameters)):
        average_gradients_([parameter for parameter in parameters if not is_sharded(parameter)])


def check_strategy(trainer: L.Trainer) -> None:
    """Check that the checks of a step see the gradients of the trainer's strategy.

    Raises:
        ShardingError: The strategy is DeepSpeed or FSDP1.

    Example:
        >>> check_strategy(L.Trainer(accelerator="cpu", logger=False))
    """
    names = {kind.__name__ for kind in type(trainer.strategy).__mro__}
    for name in _UNSUPPORTED:
        if name in names:
            raise ShardingError(
                f"Got {name}: it flattens or partitions gradients, so the checks and the exactness of a step do not "
                "hold. Use strategy='ddp', or to shard the encoder ModelParallelStrategy(data_parallel_size="
                f"{trainer.world_size}, tensor_parallel_size=1)."
            )
