"""Result files of a benchmark, CSV and Markdown, written atomically."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_mi.utilities.atomic_files import write_atomically

# Steps over which the tables average a training, by kind of report.
WINDOWS = {
    "gaussian": "the last level",
    "onehot": "the last 500 steps",
    "supervised": "the last epoch",
    "contrastive": "the last epoch",
}


def window_length(report: str, curves: dict[str, Any]) -> int:
    """The number of steps in a report's window.

    Example:
        >>> window_length("onehot", {})
        500
    """
    if report == "gaussian":
        return int((curves["true_mi"] == curves["true_mi"][-1]).sum())
    return 500 if report == "onehot" else int(curves["steps_an_epoch"])


def count(number: int, noun: str) -> str:
    """A number with its noun in the singular or plural.

    Example:
        >>> count(1, "seed"), count(5, "seed")
        ('1 seed', '5 seeds')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table.

    Example:
        >>> print(markdown_table(["loss", "MI"], [["DV", "2.00"]]))
        | loss | MI |
        |---|---|
        | DV | 2.00 |
    """
    lines = [f"| {' | '.join(row)} |" for row in (heading, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(heading)}", *lines[1:]])


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows with equal keys; without rows, an empty file."""
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, buffer.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    content = (text if text.endswith("\n") or not text else text + "\n").encode()
    write_atomically(path, lambda file: file.write(content))
