"""A search for GPUs at every step, where there are none."""

import os

import torch

_BY_DRIVER = "PYTORCH_NVML_BASED_CUDA_CHECK"


def search_no_further() -> None:
    """Where no CUDA device is available, have torch ask its own library for one, and not the driver's.

    Adam asks at each of its steps. Lightning has torch ask the driver's library first, so that a process may be forked
    after CUDA was found. Where that library is missing torch looks for it on disk each time, in vain, and asks its own
    after all, which knows: the answer is the same, and a step 0.2 ms shorter.

    Example:
        >>> search_no_further()
    """
    if os.environ.get(_BY_DRIVER) == "1" and not torch.cuda.is_available():
        os.environ[_BY_DRIVER] = "0"
