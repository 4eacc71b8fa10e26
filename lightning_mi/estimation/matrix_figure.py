"""Heat map of a symmetric matrix with named rows."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray


def draw_matrix(
    values: NDArray[np.float64], marked: NDArray[np.bool_], names: Sequence[str], label: str, note: str
) -> Figure:
    """Heat map with the values as text; the diagonal is empty.

    Args:
        values: (K, K).
        marked: (K, K) entries with a star.
        names: K names.
        label: What the values are.
        note: Meaning of the star.
    """
    size = 2.0 + 0.7 * len(names)
    figure = Figure(figsize=(size + 1.0, size), layout="constrained")
    axes = figure.subplots()
    off_diagonal = values[~np.eye(len(names), dtype=bool)]
    highest = max(float(np.nanmax(off_diagonal)), 1e-12)
    image = axes.imshow(values, vmin=0.0, vmax=highest, cmap="viridis")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if i != j:
                dark = value < 0.6 * highest
                star = "*" if marked[i, j] else ""
                axes.text(j, i, f"{value:.2f}{star}", ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_title(note, fontsize="medium")
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return figure
