"""What a process that trains sets for itself, so that many of them share a machine well."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 32 * 2**20  # bytes; the largest block that glibc can be told to keep


def settle() -> None:
    """Use one thread, and keep freed memory for the next step.

    Small matrices are fastest on one thread, and processes of one thread each do not contend for cores. A step that
    makes the blocks of some megabytes that the last one freed would otherwise have the system take each of them away
    and map it anew, page by page: for a joint critic of 4096 pairs that takes as long as its arithmetic.
    """
    import torch

    torch.set_num_threads(1)
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, 16 * _KEPT)
