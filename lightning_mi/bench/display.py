"""What a running benchmark shows: one bar for the whole grid, and a table that fills as trainings finish."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lightning_mi.bench.grid import Cell, Grid

_LAST = 100  # steps that the table's readings average over


@final
class Display:
    """Draws a grid's progress. Where the output is no terminal, a finished training is a line instead.

    Args:
        grid: The benchmark.
        console: Where to draw.
    """

    def __init__(self, grid: Grid, console: Console) -> None:
        self._grid, self._console = grid, console
        self._fractions: dict[str, float] = {}
        self._readings: dict[tuple[str, str, str, float], list[tuple[float, float, float]]] = defaultdict(list)
        self._diverged: dict[tuple[str, str, str, float], int] = defaultdict(int)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=120,
        )
        self._task = self._progress.add_task(f"bench {grid.name} ({grid.preset})", total=len(grid.cells))

    @contextmanager
    def live(self) -> Iterator[None]:
        """Draw until the block ends."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True):
            yield

    def progress(self, cell: Cell, fraction: float) -> None:
        """A cell is this far, between 0 and 1."""
        self._fractions[cell.name] = fraction
        self._progress.update(self._task, completed=sum(self._fractions.values()))

    def finished(self, cell: Cell, curves: dict[str, Any]) -> None:
        """A cell has ended, with these curves."""
        self.progress(cell, 1.0)
        key = (cell.study, cell.loss, cell.variant, cell.target)
        last = tuple(float(np.mean(curves[name][-_LAST:])) for name in ("value", "plug_in", "log_normalizer"))
        self._readings[key].append((last[0], last[1], last[2]))
        self._diverged[key] += curves["diverged_at"] is not None
        if not self._console.is_terminal:
            done = sum(fraction == 1.0 for fraction in self._fractions.values())
            readings = ", ".join(
                f"{name} {value:.2f}" for name, value in zip(("value", "plug-in", "log-normalizer"), last, strict=True)
            )
            self._console.print(f"[{done}/{len(self._grid.cells)}] {cell.name}: {readings}", highlight=False)

    def table(self) -> Table:
        """Readings of the finished trainings, the mean over seeds of each one's last steps."""
        table = Table(caption=f"nats, mean of the last {_LAST} steps of each finished training, over seeds")
        for heading in ("study", "loss", "variant", "target", "runs", "value", "plug-in", "log-normalizer", "diverged"):
            table.add_column(heading, justify="left" if heading in ("study", "loss", "variant") else "right")
        planned: dict[tuple[str, str, str, float], int] = defaultdict(int)
        for cell in self._grid.cells:
            planned[cell.study, cell.loss, cell.variant, cell.target] += 1
        for key, total in planned.items():
            runs = self._readings.get(key)
            if runs:
                means = [f"{value:.2f}" for value in np.mean(runs, axis=0)]
                table.add_row(*key[:3], f"{key[3]:g}", f"{len(runs)}/{total}", *means, str(self._diverged[key] or ""))
        return table

    def _render(self) -> Group:
        return Group(self.table(), self._progress)
