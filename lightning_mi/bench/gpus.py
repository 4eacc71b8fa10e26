"""Assign the GPUs of this machine to the worker processes of a grid."""

import os


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, in the notation of ``CUDA_VISIBLE_DEVICES``."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip()]
    import torch  # seconds; not needed if a scheduler has set the variable

    return [str(index) for index in range(torch.cuda.device_count())]


def gpus_of_worker(worker: int, gpus_per_run: float, gpus: list[str]) -> list[str]:
    """The GPUs of one worker process, assigned round-robin.

    Args:
        worker: Number of the worker, from 0.
        gpus_per_run: GPUs of a training; up to 1, several workers share one GPU.
        gpus: All visible GPUs.

    Raises:
        ValueError: If ``gpus_per_run`` exceeds the number of GPUs.

    Example:
        >>> gpus_of_worker(1, 2, ["0", "1", "2", "3"]), gpus_of_worker(5, 0.5, ["0", "1", "2", "3"])
        (['2', '3'], ['1'])
    """
    if gpus_per_run > len(gpus):
        raise ValueError(
            f"Got --gpus-per-run {gpus_per_run:g}: this machine has {len(gpus)} visible GPUs. Give at most that many, "
            "or use --ray for a cluster."
        )
    count = max(1, int(gpus_per_run))
    first = worker % max(1, len(gpus) // count) * count
    return gpus[first : first + count]


def max_parallel_runs(gpus_per_run: float, gpus: list[str]) -> int:
    """The number of trainings that fit on the GPUs at the same time, at least one.

    Example:
        >>> max_parallel_runs(0.5, ["0", "1"]), max_parallel_runs(2, ["0", "1", "2", "3"])
        (4, 2)
    """
    return max(1, int(len(gpus) / gpus_per_run))
