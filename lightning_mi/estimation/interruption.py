"""Ctrl-C during the fits of an estimation: the first ends them, the second raises KeyboardInterrupt."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

import lightning.pytorch as L

from lightning_mi.utilities.interrupts import SAME_PRESS


@final
class Interruption:
    """Whether Ctrl-C was pressed.

    Attributes:
        requested: True after the first SIGINT: fits end at their next step.
        raised: True after the second, which raises KeyboardInterrupt.

    Example:
        >>> with catch_interrupts() as interruption:
        ...     signal.raise_signal(signal.SIGINT)
        >>> interruption.requested
        True
    """

    def __init__(self) -> None:
        self.requested = self.raised = False
        self._time = 0.0

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT.

        Raises:
            KeyboardInterrupt: It is the second, and not the copy of the first that wrappers such as `timeout` send.
        """
        if not self.requested:
            self.requested, self._time = True, time.monotonic()
        elif time.monotonic() - self._time > SAME_PRESS:
            self.raised = True
            raise KeyboardInterrupt


@contextmanager
def catch_interrupts() -> Iterator[Interruption]:
    """Context manager: handle SIGINT by an :class:`Interruption`, and restore the previous handler at the end.

    No effect outside the main thread, where Python does not allow handlers, and if SIGINT is ignored.

    Raises:
        KeyboardInterrupt: At the second SIGINT.
    """
    interruption = Interruption()
    before = signal.getsignal(signal.SIGINT)
    if before in (None, signal.SIG_IGN) or threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    signal.signal(signal.SIGINT, interruption.receive)
    try:
        yield interruption
    except SystemExit:  # Lightning turns a KeyboardInterrupt into SystemExit(1)
        if interruption.raised:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores SIGINT after a KeyboardInterrupt


@final
class StopIfInterrupted(L.Callback):
    """Ends a training at its next step after Ctrl-C.

    Args:
        interruption: Whether Ctrl-C was pressed.
    """

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Skip the training if Ctrl-C was pressed before it."""
        trainer.should_stop |= self._interruption.requested

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if Ctrl-C was pressed."""
        trainer.should_stop |= self._interruption.requested
