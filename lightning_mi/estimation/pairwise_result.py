"""PairwiseMI: the mutual information of each pair of columns."""

import html
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_mi.estimation.matrix_figure import draw_matrix
from lightning_mi.estimation.multiple_tests import LEVEL, Adjustment
from lightning_mi.estimation.result import MIEstimate, Units

if TYPE_CHECKING:
    import pandas as pd

Matrix = NDArray[np.float64]
_ADJUSTMENTS: dict[Adjustment, str] = {"holm": "Holm", "fdr": "Benjamini and Hochberg"}
_MAX_LINES = 10  # pairs in the text


@final
@dataclass(frozen=True)
class PairwiseMI:
    """The result of :func:`lightning_mi.pairwise`: the MI of each pair of K columns, with adjusted p-values.

    All matrices are symmetric. Their diagonal is NaN: the MI of a continuous variable with itself is infinite.

    Attributes:
        names: (K,) names of the columns or groups.
        mi: (K, K) estimates, in ``units``.
        lower: (K, K) lower confidence limits, each for one pair alone, not adjusted.
        p_values: (K, K) p-values of independence, each for one pair alone.
        adjusted_p_values: (K, K) p-values adjusted for all pairs.
        adjust: ``"holm"`` or ``"fdr"``, how they are adjusted.
        units: ``"nats"`` or ``"bits"``.
        results: The :class:`~lightning_mi.MIEstimate` by pair of names, in the order of ``names``.
    """

    names: tuple[str, ...]
    mi: Matrix
    lower: Matrix
    p_values: Matrix
    adjusted_p_values: Matrix
    adjust: Adjustment
    units: Units
    results: dict[tuple[str, str], MIEstimate] = field(repr=False)

    def __str__(self) -> str:
        """The strongest pairs, then the findings and in how many pairs they occur."""
        rows = sorted(self._rows(), key=lambda row: -row["mi"])
        width = max(len(f"{row['x']}, {row['y']}") for row in rows)
        lines = [
            f"MI of {len(self.names)} columns, {len(rows)} pairs, {self.units}; {self._note()}",
            *(
                f"  {row['x'] + ', ' + row['y']:<{width}}  {row['mi']:6.3f}{_star(row['adjusted_p_value'])}"
                f"  p = {row['adjusted_p_value']:.2g}"
                for row in rows[:_MAX_LINES]
            ),
        ]
        if len(rows) > _MAX_LINES:
            lines.append(f"  and {len(rows) - _MAX_LINES} weaker pairs")
        codes = Counter(code for row in rows for code in row["findings"])
        lines.append("findings: " + (", ".join(f"{code} ({n})" for code, n in codes.most_common()) or "none"))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The matrix for notebooks."""
        names = [html.escape(name) for name in self.names]
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(
            f"<tr><th>{name}</th>"
            + "".join("<td></td>" if i == j else f"<td>{self._cell(i, j).strip()}</td>" for j in range(len(names)))
            + "</tr>"
            for i, name in enumerate(names)
        )
        caption = f"MI, {self.units}; {self._note()}"
        return f"<table><caption>{caption}</caption><tr><th></th>{head}</tr>{body}</table>"

    def to_frame(self) -> "pd.DataFrame":
        """One row for each pair, as a pandas data frame.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd

        return pd.DataFrame([row | {"findings": ", ".join(row["findings"])} for row in self._rows()])

    def to_json(self) -> str:
        """All pairs, as a JSON object."""
        values = {"names": self.names, "units": self.units, "adjust": self.adjust, "pairs": self._rows()}
        return json.dumps(values, indent=2)

    def plot(self) -> Figure:
        """Heat map of the matrix with its values; a star marks adjusted p-values below 0.05."""
        return draw_matrix(self.mi, self.adjusted_p_values < LEVEL, self.names, f"MI, {self.units}", self._note())

    def _rows(self) -> list[dict[str, Any]]:
        index = {name: i for i, name in enumerate(self.names)}
        return [
            {
                "x": x,
                "y": y,
                "mi": result.mi,
                "lower": result.lower,
                "upper": result.upper,
                "standard_error": result.standard_error,
                "p_value": result.p_value,
                "adjusted_p_value": float(self.adjusted_p_values[index[x], index[y]]),
                "num_samples": result.num_samples,
                "findings": [finding.code for finding in result.findings],
            }
            for (x, y), result in self.results.items()
        ]

    def _note(self) -> str:
        return f"* p < {LEVEL:g}, adjusted by {_ADJUSTMENTS[self.adjust]}"

    def _cell(self, i: int, j: int) -> str:
        return f"{self.mi[i, j]:.3f}{_star(self.adjusted_p_values[i, j])}"


def _star(p_value: float) -> str:
    return "*" if p_value < LEVEL else " "
