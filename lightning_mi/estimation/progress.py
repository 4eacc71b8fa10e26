"""Progress bar of the fits of an estimation, with the time left."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, final

import lightning.pytorch as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(shown: bool | None, total_steps: int) -> Iterator[Sequence[L.Callback]]:
    """Context manager: the callbacks that draw a progress bar of several fits on stderr; none if it is not shown.

    Args:
        shown: Whether to draw it; None draws it if stderr is a terminal, or in a notebook with ipywidgets.
        total_steps: The maximum number of steps of all fits together.

    Example:
        >>> with progress_bar(False, 100) as callbacks:
        ...     callbacks
        ()
    """
    if shown is False or sys.stderr is None:
        yield ()
        return
    console = Console(stderr=True)
    notebook = console.is_jupyter and find_spec("ipywidgets") is not None
    terminal = sys.stderr.isatty() and not console.is_dumb_terminal
    if shown is None and not (terminal or notebook):
        yield ()
        return
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
        transient=terminal,
        redirect_stdout=False,  # it would print to stderr
    )
    with progress:
        yield [StepProgress(progress, progress.add_task("estimate", total=total_steps))]


@final
class StepProgress(L.Callback):
    """Advances a task of a progress bar at each step. A fit that stops early takes its other steps off the total.

    The total shrinks, instead of a jump of the steps done, so that the speed and the time left remain those of steps.

    Args:
        progress: The progress bar.
        task: Its task, whose total is the maximum number of steps of the fits that are planned.
    """

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._steps = 0  # of this fit

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start with the next fit, and add its steps to the total if they are not in it."""
        self._steps = 0
        task = self._progress.tasks[0]
        self._progress.update(self._task, total=max(task.total or 0, task.completed + trainer.max_steps))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by a step."""
        self._steps += 1
        self._progress.advance(self._task)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the steps that are left off the total."""
        total = self._progress.tasks[0].total or 0
        if left := max(trainer.max_steps - self._steps, 0):
            self._progress.update(self._task, total=total - left)
