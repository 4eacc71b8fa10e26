"""Parameters sharded over ranks: FSDP2, by Lightning's ``ModelParallelStrategy``."""

from __future__ import annotations

from typing import cast

import lightning.pytorch as L
from torch import nn

from lightning_mi.exceptions import ShardingError
from lightning_mi.utilities.distributed import average_gradients_, broadcast_
from lightning_mi.utilities.sharded_tensors import is_sharded

# Strategies that keep gradients where the checks of a step do not see them, and that were never run with this package.
_UNSUPPORTED = ("DeepSpeedStrategy", "FSDPStrategy")


def shard_encoders(module: L.LightningModule) -> None:
    """Shard the parameters of each encoder over the data-parallel ranks, once; for the hook ``configure_model``.

    Not a hook of every module: Lightning's ``WeightAveraging`` warns of each module that has one. Under a strategy
    without a device mesh it does nothing.

    All ranks start from the weights of rank 0. Critic, bound and probe stay whole on every rank: a critic is called by
    methods, and its parameters are read again in backward, where FSDP has freed them.

    Args:
        module: A :class:`MIEstimationModule`. Each of its encoders is one unit of FSDP. Inner units, such as the blocks
            of a transformer, may be sharded before.

    Raises:
        ShardingError: The mesh has more than one tensor-parallel rank.

    Example:
        >>> from lightning_mi import MIEstimationModule
        >>> class Sharded(MIEstimationModule):
        ...     def configure_model(self):
        ...         shard_encoders(self)
    """
    mesh = module.device_mesh
    if mesh is None:
        return
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if (size := mesh["tensor_parallel"].size()) > 1:
        raise ShardingError(
            f"Got tensor_parallel_size={size}: ranks that share a batch would pair its samples {size} times. Use "
            f"ModelParallelStrategy(data_parallel_size={mesh.size()}, tensor_parallel_size=1)."
        )
    encoders = cast("nn.ModuleList", module.encoders)
    pending = [encoder for encoder in encoders if not isinstance(encoder, FSDPModule)]
    whole = (tensor for tensor in (*module.parameters(), *module.buffers()) if not is_sharded(tensor))
    broadcast_([tensor.detach() for tensor in whole if not tensor.is_meta])
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
    names = {kind.__name__ for kind in type(getattr(trainer, "strategy", None)).__mro__}
    for name in _UNSUPPORTED:
        if name in names:
            raise ShardingError(
                f"Got {name}: it flattens or partitions gradients, so the checks and the exactness of a step do not "
                "hold. Use strategy='ddp', or to shard the encoder ModelParallelStrategy(data_parallel_size="
                f"{trainer.world_size}, tensor_parallel_size=1)."
            )
