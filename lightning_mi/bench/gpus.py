"""Which GPUs of this machine a process of a grid sees, so that they do not all crowd onto the first."""

import os


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip()]
    import torch  # seconds; where a scheduler has named them, they are not needed

    return [str(index) for index in range(torch.cuda.device_count())]


def gpus_of(slot: int, gpus_per_run: float, gpus: list[str]) -> list[str]:
    """The GPUs of one of several processes that train side by side.

    Args:
        slot: The process's number, from 0.
        gpus_per_run: How many a training has; up to 1, processes share them in turn.
        gpus: Those that there are.

    Raises:
        ValueError: There are fewer than one training is to have.

    Example:
        >>> gpus_of(1, 2, ["0", "1", "2", "3"]), gpus_of(5, 0.5, ["0", "1", "2", "3"])
        (['2', '3'], ['1'])
    """
    wanted = max(1, int(gpus_per_run))
    if gpus_per_run > len(gpus):
        raise ValueError(
            f"Got --gpus-per-run {gpus_per_run:g} on a machine with {len(gpus)} visible GPUs: a training of this "
            "machine has at most those."
        )
    first = slot % max(1, len(gpus) // wanted) * wanted
    return gpus[first : first + wanted]


def jobs_for(gpus_per_run: float, gpus: list[str]) -> int:
    """How many trainings the GPUs have room for at once; at least one.

    Example:
        >>> jobs_for(0.5, ["0", "1"]), jobs_for(2, ["0", "1", "2", "3"])
        (4, 2)
    """
    return max(1, int(len(gpus) / gpus_per_run))
