"""`lightning-mi results`: tables and figures of finished runs of `lightning-mi bench`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from lightning_mi.bench.manifest import read_grid, result_folders
from lightning_mi.bench.reports.summary import Row, Spread, Summary, format_table
from lightning_mi.bench.reports.write import check_finished, has_finished, summary_of, write_report
from lightning_mi.exceptions import GridError

_NONE = Spread(float("nan"), float("nan"))
_T = TypeVar("_T")


def run(options: argparse.Namespace) -> int:
    """Write the figures, print the table of all folders, and return the exit status.

    Raises:
        GridError: If a folder holds no finished runs, or no run logged a chosen metric.
    """
    summaries: dict[Path, Summary] = {}
    folders = list(dict.fromkeys(path for given in options.folders for path in result_folders(given)))
    for folder in folders:
        grid = read_grid(folder)
        if len(folders) == 1:
            check_finished(grid, folder)
        elif not has_finished(grid, folder):
            print(f"left out {folder}: no run of it is finished", file=sys.stderr)
            continue
        paths = write_report(grid, folder, options.figures)
        summaries[folder] = summary_of(grid, folder, options.metrics)
        for path in paths:
            print(f"wrote {path}", file=sys.stderr)
    if not summaries:
        raise GridError(f"Got {len(folders)} folders: no run in them is finished. Repeat their `lightning-mi bench`.")
    print(format_table(_join(summaries), options.format))
    return 0


def _join(summaries: dict[Path, Summary]) -> Summary:
    """One table of several folders, with the folder as first column; `-` where a folder has no such column."""
    if len(summaries) == 1:
        return next(iter(summaries.values()))
    labels = tuple(dict.fromkeys(name for summary in summaries.values() for name in summary.labels))
    metrics = tuple(dict.fromkeys(name for summary in summaries.values() for name in summary.metrics))
    rows = [
        Row(
            (str(folder), *_pick(summary.labels, row.labels, labels, "-")),
            row.runs,
            row.diverged,
            tuple(_pick(summary.metrics, row.values, metrics, _NONE)),
        )
        for folder, summary in summaries.items()
        for row in summary.rows
    ]
    return Summary(("folder", *labels), metrics, tuple(rows))


def _pick(names: Sequence[str], values: Sequence[_T], wanted: Sequence[str], missing: _T) -> list[_T]:
    by_name = dict(zip(names, values, strict=True))
    return [by_name.get(name, missing) for name in wanted]
