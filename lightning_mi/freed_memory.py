"""Memory that a training frees and takes again at every step, kept by its process."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 32 * 2**20  # bytes; the largest block that glibc can be told to keep


def keep_freed_memory() -> None:
    """Keep freed memory for the next step, of this process and for good; nothing where the C library is not glibc.

    A step that makes the blocks of some megabytes that the last one freed would otherwise have the system take each of
    them away and map it anew, page by page: for a joint critic of 4096 pairs that takes a fifth of the step.

    Example:
        >>> keep_freed_memory()
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, 16 * _KEPT)
