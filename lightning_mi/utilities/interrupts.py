"""Handlers for SIGINT, SIGTERM and SIGHUP that exit with the status 128 + signal number, as shells report it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAME_PRESS = 0.5  # seconds: `timeout -s INT` and other wrappers send one Ctrl-C to the process and to its group


def exit_status(number: int) -> int:
    """The exit status of a command that ends by a signal.

    Example:
        >>> exit_status(signal.SIGTERM)
        143
    """
    return 128 + number


def handle_signals(handle: Callable[[signal.Signals], None]) -> dict[int, Any]:
    """Call ``handle`` on the first SIGINT, SIGTERM or SIGHUP; a later SIGINT ends the process at once.

    A signal that is ignored, as SIGHUP under ``nohup``, stays ignored. No effect outside the main thread, where Python
    does not allow handlers.

    Args:
        handle: Called in the main thread, between two bytecode instructions.

    Returns:
        The previous handlers, for :func:`restore_signals`.

    Example:
        >>> before = handle_signals(lambda number: print(number.name))
        >>> signal.raise_signal(signal.SIGTERM)
        SIGTERM
        >>> restore_signals(before)
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    process = os.getpid()
    times: list[float] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            _receive_in_fork(number)
        elif not times:
            times.append(time.monotonic())
            handle(signal.Signals(number))
        elif number == signal.SIGINT and time.monotonic() - times[0] > SAME_PRESS:
            os._exit(exit_status(number))

    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, receive) for number in handled}


def restore_signals(before: Mapping[int, Any]) -> None:
    """Restore the handlers that :func:`handle_signals` returned."""
    for number, handler in before.items():
        if handler is not None:  # None: not set by Python
            signal.signal(number, handler)


def end_at_once(number: signal.Signals) -> None:
    """A handler that exits at once, without cleanup or traceback: for a command without unsaved work."""
    os._exit(exit_status(number))


@contextmanager
def interruptible() -> Iterator[None]:
    """Context manager: a signal raises KeyboardInterrupt, and the block ends with SystemExit and the signal's status.

    Raises:
        SystemExit: With status 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP.

    Example:
        >>> with interruptible():
        ...     signal.raise_signal(signal.SIGTERM)
        Traceback (most recent call last):
        SystemExit: 143
    """
    received: list[int] = []

    def interrupt(number: signal.Signals) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = handle_signals(interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(exit_status(*received or (signal.SIGINT,))) from None
    except SystemExit:  # Lightning turns a KeyboardInterrupt into SystemExit(1)
        if received:
            raise SystemExit(exit_status(*received)) from None
        raise
    finally:
        restore_signals(before)


def _receive_in_fork(number: int) -> None:
    """Dataloader workers inherit the handlers: they end by SIGTERM only, or with their parent."""
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
