"""Scores of 10 to infinity in three dtypes: how often each bound equals float64, and how often it warns instead.

python benchmarks/extremes.py
"""

from collections.abc import Callable

import torch

from lightning_mi.bench.reports.tables import markdown_table
from tests.bounds.test_extremes import CASES, DTYPES, PATTERNS, SIZES, assert_right_or_warned


def counts(read: Callable[..., bool]) -> list[list[str]]:
    """One table row for each size: the numbers of correct cases and of cases with a warning, by dtype."""
    table, total = [], [0, 0]
    for size in SIZES:
        cells = []
        for dtype in DTYPES:
            scores = [
                (*case, torch.tensor(size * make(case[1])).to(dtype)) for case in CASES for make in PATTERNS.values()
            ]
            right = sum(read(*case) for case in scores)
            cells.append(f"{right} + {len(scores) - right}")
            total = [total[0] + right, total[1] + len(scores) - right]
        table.append([f"{size:g}", *cells])
    return [*table, [f"all {sum(total)}", f"{total[0]} + {total[1]}", "", ""]]


def main(read: Callable[..., bool] = assert_right_or_warned) -> None:
    print(markdown_table(["scores", *(str(dtype).removeprefix("torch.") for dtype in DTYPES)], counts(read)))


if __name__ == "__main__":
    main()
