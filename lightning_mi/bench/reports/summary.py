"""Means and standard deviations over seeds, and their table as Markdown, CSV or LaTeX."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from lightning_mi.bench.reports.tables import markdown_table

Format = Literal["markdown", "csv", "latex"]
FORMATS: tuple[Format, ...] = get_args(Format)

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


class Spread(NamedTuple):
    """Mean and standard deviation over the runs with a finite value; NaN without a value, or a second one."""

    mean: float
    deviation: float

    def text(self, sign: str = "±") -> str:
        """The mean with its standard deviation, in three decimals.

        Example:
            >>> Spread(1.98, 0.0125).text(), Spread(1.98, math.nan).text(), Spread(math.nan, math.nan).text()
            ('1.980 ± 0.013', '1.980', '-')
        """
        if math.isnan(self.mean):
            return "-"
        return _number(self.mean) + ("" if math.isnan(self.deviation) else f" {sign} {_number(self.deviation)}")


class Row(NamedTuple):
    """The runs with the same labels, which differ by their seeds."""

    labels: tuple[str, ...]
    runs: int
    diverged: int
    values: tuple[Spread, ...]


class Summary(NamedTuple):
    """A table: names of its label columns and of its metrics, and its rows."""

    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]


def summarize(results: Sequence[Mapping[str, Any]], labels: Sequence[str], metrics: Sequence[str]) -> Summary:
    """Means and standard deviations (n - 1) over the results with the same labels, which differ by their seeds.

    Args:
        results: One mapping for each run, or for each level of a run: labels, metrics, and ``diverged_at`` if the loss
            was not finite.
        labels: Names of the labels.
        metrics: Names of the metrics.

    Example:
        >>> runs = [{"loss": "DV", "mi": 1.9}, {"loss": "DV", "mi": 2.1}]
        >>> print(format_table(summarize(runs, ["loss"], ["mi"])))
        | loss | runs | mi |
        |---|---|---|
        | DV | 2 | 2.000 ± 0.141 |
    """
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(_text(result.get(label)) for label in labels), []).append(result)
    rows = [
        Row(
            key,
            len(group),
            sum(_diverged(result) for result in group),
            tuple(_spread(result.get(name) for result in group) for name in metrics),
        )
        for key, group in groups.items()
    ]
    return Summary(tuple(labels), tuple(metrics), tuple(rows))


def format_table(summary: Summary, form: Format = "markdown") -> str:
    """The table of a summary. In CSV, mean and standard deviation are columns of their own, in full precision.

    Args:
        summary: The summary.
        form: ``markdown``, ``csv`` or ``latex`` (with the package booktabs).
    """
    diverged = any(row.diverged for row in summary.rows)
    if form == "csv":
        return _csv(summary)
    heading = [*summary.labels, "runs", *summary.metrics, *(["not finite"] if diverged else [])]
    sign = r"$\pm$" if form == "latex" else "±"
    rows = [
        [
            *(_escape(label) if form == "latex" else label for label in row.labels),
            str(row.runs),
            *(value.text(sign) for value in row.values),
            *([str(row.diverged)] if diverged else []),
        ]
        for row in summary.rows
    ]
    if form == "markdown":
        return markdown_table(heading, rows)
    columns = "l" * len(summary.labels) + "r" * (len(heading) - len(summary.labels))
    lines = [" & ".join(cells) + r" \\" for cells in [[_escape(name) for name in heading], *rows]]
    body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"])


def _csv(summary: Summary) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    spreads = [f"{name}{suffix}" for name in summary.metrics for suffix in ("", "_sd")]
    writer.writerow([*summary.labels, "runs", "not_finite", *spreads])
    for row in summary.rows:
        numbers = ["" if math.isnan(number) else repr(number) for value in row.values for number in value]
        writer.writerow([*row.labels, row.runs, row.diverged, *numbers])
    return buffer.getvalue().rstrip("\n")


def _spread(values: Iterable[Any]) -> Spread:
    finite = [number for number in map(_as_number, values) if math.isfinite(number)]
    deviation = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
    return Spread(float(np.mean(finite)) if finite else math.nan, deviation)


def _as_number(value: Any) -> float:
    if value in ("True", "False"):
        return float(value == "True")
    try:
        return math.nan if value is None else float(value)
    except ValueError:
        return math.nan


def _diverged(result: Mapping[str, Any]) -> bool:
    return result.get("diverged_at") not in (None, "")


def _text(value: Any) -> str:
    return "-" if value in (None, "") else str(value)


def _number(x: float) -> str:
    return f"{x:.3f}" if abs(x) < 1e4 else f"{x:.1e}"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
