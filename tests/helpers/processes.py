"""Run a function on several ranks and collect results and errors."""

import datetime

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = datetime.timedelta(seconds=60)


def _call(rank, function, world_size, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size, timeout=TIMEOUT
    )
    try:
        result = function(rank)
    except (ValueError, TypeError) as error:
        result = f"{type(error).__name__}: {error}"
    torch.save(result, f"{folder}/{rank}.pt")
    dist.barrier()  # a rank that exits early would abort the others
    dist.destroy_process_group()


def on_processes(function, world_size, folder):
    """The results of ``function(rank)`` by rank: tensors and plain values; an error as its type and message."""
    mp.start_processes(_call, (function, world_size, str(folder)), nprocs=world_size, start_method="fork")
    return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(world_size)]
