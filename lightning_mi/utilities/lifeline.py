"""End a process as soon as its parent has ended, even by SIGKILL.

Each process watches its direct parent only, so that a tree of processes ends from the top down. A daemon thread waits:
on a pipe whose other end is open in the parent only, or, in ranks that Lightning launches, on the parent's process ID.

`python -m lightning_mi.utilities.lifeline MODULE ARGUMENT ...` runs `python -m MODULE ARGUMENT ...` until its standard
input closes.
"""

import multiprocessing
import os
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

_LAUNCHER = "LIGHTNING_MI_LAUNCHER"  # environment variable: ID of the process that launches ranks
_PERIOD = 0.5  # seconds between two polls of the parent's ID
_STATUS = 1  # exit status of a process whose parent has ended


def end_after(wait: Callable[[], object]) -> None:
    """End this process, without any cleanup, when ``wait`` returns or raises.

    Args:
        wait: Blocks until the parent has ended; called in a daemon thread.

    Example:
        >>> end_after(threading.Event().wait)  # never
    """
    threading.Thread(target=_end, args=(wait,), name="lifeline", daemon=True).start()


def end_with_parent() -> None:
    """End this process with its parent, if :mod:`multiprocessing` started it; no effect otherwise.

    Example:
        >>> end_with_parent()
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_after(parent.join)


def end_with_stdin() -> None:
    """End when standard input closes: a pipe that is open in the parent, which never writes to it."""
    end_after(partial(os.read, 0, 1))


@contextmanager
def launched_ranks() -> Iterator[None]:
    """Context manager: ranks that Lightning launches as copies of this command end with this process.

    A launched rank watches its launcher, or ``torchrun``. The launcher watches no process: under ``nohup`` it survives
    its shell.

    Example:
        >>> with launched_ranks():
        ...     print(os.environ["LIGHTNING_MI_LAUNCHER"] == str(os.getpid()))
        True
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ[_LAUNCHER] = str(os.getpid())
        try:
            yield
        finally:
            del os.environ[_LAUNCHER]
        return
    launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else int(os.environ.get(_LAUNCHER, 0))
    if launcher and os.name == "posix":  # on Windows the parent's ID does not change when it ends
        end_after(partial(_wait_until_orphaned, launcher))
    yield


def is_launched_rank() -> bool:
    """True in a rank other than the first that Lightning launched as a copy of this command.

    Example:
        >>> is_launched_rank()
        False
    """
    return os.environ.get("LOCAL_RANK", "0") != "0" and _LAUNCHER in os.environ


def _end(wait: Callable[[], object]) -> None:
    try:
        wait()
    finally:
        os._exit(_STATUS)


def _wait_until_orphaned(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PERIOD)


if __name__ == "__main__":
    end_with_stdin()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
