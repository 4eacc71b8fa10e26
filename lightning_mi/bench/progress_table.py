"""Terminal output of a running benchmark: a progress bar for the grid, and a table of finished cells."""

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

from lightning_mi.bench.cells import AbstractCell, Grid
from lightning_mi.bench.progress_columns import progress_columns
from lightning_mi.utilities.parser_errors import readable


@final
class ProgressTable:
    """Live progress of a grid. If the output is not a terminal, one line for each finished cell.

    Args:
        grid: The benchmark.
        console: The terminal.
    """

    def __init__(self, grid: Grid[Any], console: Console) -> None:
        self._grid, self._console = grid, console
        self._columns = progress_columns(grid)
        self.failures: dict[str, str] = {}  # errors by the names of their cells
        self._fractions: dict[str, float] = {}
        self._readings: dict[str, list[list[float]]] = defaultdict(list)
        self._without_values: Counter[str] = Counter()
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

    def progress(self, cell: AbstractCell, fraction: float) -> None:
        """Update a running cell; ``fraction`` is the fraction of its steps done."""
        self._fractions[cell.name] = fraction
        self._progress.update(self._task, completed=sum(self._fractions.values()))

    def finished(self, cell: AbstractCell, curves: dict[str, Any]) -> None:
        """Add a finished cell."""
        self.progress(cell, 1.0)
        row, values = self._columns.row(cell), self._columns.read(cell, curves)
        if values is None:
            self._without_values[row] += 1
            outcome = self._columns.outcome(curves)
        else:
            self._readings[row].append(values)
            labels = self._columns.headings[1:-1]
            outcome = ", ".join(f"{label} {_number(value)}" for label, value in zip(labels, values, strict=True))
        if not self._console.is_terminal:
            self._print(f"{self._count()} {cell.name}: {outcome}")

    def failed(self, cell: AbstractCell, error: str) -> None:
        """Add a failed cell, and print its error."""
        self.progress(cell, 1.0)
        kind, _, message = error.partition(": ")
        self.failures[cell.name] = f"{kind}: {readable(message)}"
        self._print(f"{self._count()} {cell.name} failed: {self.failures[cell.name]}")

    def table(self) -> Table:
        """Table of the finished cells: means over the cells of a row."""
        first, *values, last = self._columns.headings
        table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), caption=self._columns.caption)
        table.add_column(first, overflow="fold")
        for heading in ("runs", *values, last):
            table.add_column(heading, justify="right", no_wrap=True, overflow="fold")
        planned = Counter(self._columns.row(cell) for cell in self._grid.cells)
        for row, total in planned.items():
            runs, without = self._readings[row], self._without_values[row]
            means = [_number(mean) for mean in np.mean(runs, axis=0)] if runs else [""] * len(values)
            table.add_row(row, f"{len(runs) + without}/{total}", *means, str(without or ""))
        return table

    def _count(self) -> str:
        return f"{sum(fraction == 1.0 for fraction in self._fractions.values())}/{len(self._grid.cells)}"

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _render(self) -> Group:
        return Group(self._progress, self.table())  # the bar first: a long table may leave the screen


def _number(x: float) -> str:
    return f"{x:.2f}" if abs(x) < 1000 else f"{x:.1e}"
