"""Terminal output of a running benchmark: a progress bar for the grid, and a table of finished trainings."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy as np
from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lightning_mi.bench.grid import Cell, Grid
from lightning_mi.bench.reports.tables import WINDOWS, window_length


@final
class ProgressTable:
    """Live progress of a grid. If the output is not a terminal, one line for each finished training.

    Args:
        grid: The benchmark.
        console: The terminal.
    """

    def __init__(self, grid: Grid, console: Console) -> None:
        self._grid, self._console = grid, console
        self._fractions: dict[str, float] = {}
        self._readings: dict[str, list[list[float]]] = defaultdict(list)
        self._diverged: Counter[str] = Counter()
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
        """Context manager: draw until the block ends."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True):
            yield

    def progress(self, cell: Cell, fraction: float) -> None:
        """Update a running cell; ``fraction`` is the fraction of its steps done."""
        self._fractions[cell.name] = fraction
        self._progress.update(self._task, completed=sum(self._fractions.values()))

    def finished(self, cell: Cell, curves: dict[str, Any]) -> None:
        """Add a finished cell."""
        self.progress(cell, 1.0)
        if curves["diverged_at"] is None:
            length = window_length(self._grid.report, curves)
            means = [float(np.nanmean(curves[name][-length:])) for name in ("value", "plug_in", "log_normalizer")]
            self._readings[cell.kind].append(means)
            labels = ("value", "plug-in", "log-normalizer")
            outcome = ", ".join(f"{label} {_number(mean)}" for label, mean in zip(labels, means, strict=True))
        else:
            self._diverged[cell.kind] += 1
            outcome = f"loss not finite at step {curves['diverged_at']}"
        if not self._console.is_terminal:
            done = sum(fraction == 1.0 for fraction in self._fractions.values())
            line = f"{done}/{len(self._grid.cells)} {cell.name}: {outcome}"
            self._console.print(line, highlight=False, soft_wrap=True)

    def table(self) -> Table:
        """Table of the finished trainings: means over seeds, over the same steps as in the tables of the report."""
        headings = ("training", "runs", "value", "plug-in", "log-norm.", "not finite")
        window = WINDOWS[self._grid.report]
        table = Table(
            box=SIMPLE,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            caption=f"nats; mean over {window} and over the seeds with a finite loss",
        )
        for heading in headings:
            first = heading == "training"
            table.add_column(heading, justify="left" if first else "right", no_wrap=not first, overflow="fold")
        planned = Counter(cell.kind for cell in self._grid.cells)
        for kind, total in planned.items():
            runs = self._readings[kind]
            means = [_number(mean) for mean in np.mean(runs, axis=0)] if runs else ["", "", ""]
            diverged = self._diverged[kind]
            table.add_row(kind, f"{len(runs) + diverged}/{total}", *means, str(diverged or ""))
        return table

    def _render(self) -> Group:
        return Group(self._progress, self.table())  # the bar first: a long table may leave the screen


def _number(x: float) -> str:
    return f"{x:.2f}" if abs(x) < 1000 else f"{x:.1e}"
