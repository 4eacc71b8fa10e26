"""Figures of scores and features. Colors: the color-blind-safe palette of Okabe and Ito."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

JOINT_COLOR, MARGINAL_COLOR = "#009E73", "#CC79A7"
_BINS = 60
_BULK = (0.5, 99.5)  # percentiles on the axis: single scores of an exploding run can have any size


def bin_edges(low: float, high: float, count: int) -> NDArray[np.float64]:
    """(count + 1,) edges of bins of equal width around an interval, which may be a single number.

    Example:
        >>> bin_edges(1e19, 1e19, 2)
        array([9.9999e+18, 1.0000e+19, 1.0000e+19])
    """
    margin = max(0.02 * (high - low), 1e-6 * max(abs(low), abs(high)), 1e-3)
    return np.linspace(low - margin, high + margin, count + 1)


def score_figure(joint: Tensor, marginal: Tensor, title: str) -> Figure | None:
    """Histograms of a critic's scores: joint pairs (positives) and marginal pairs (negatives).

    Args:
        joint: (J,) finite scores on the CPU, nats.
        marginal: (K,) the same for marginal pairs.
        title: Title of the figure.

    Returns:
        None without scores.

    Example:
        >>> import torch
        >>> score_figure(torch.ones(3), torch.zeros(5), "step 10").axes[0].get_xlabel()
        'critic score T (nats)'
    """
    named = {"joint pairs": (joint, JOINT_COLOR), "marginal pairs": (marginal, MARGINAL_COLOR)}
    named = {label: (scores, color) for label, (scores, color) in named.items() if len(scores)}
    if not named:
        return None
    ends = np.concatenate([np.percentile(scores.double().numpy(), _BULK) for scores, _ in named.values()])
    edges = bin_edges(float(ends.min()), float(ends.max()), _BINS)
    # Fixed axes: a layout engine would take longer than everything else.
    figure = Figure(figsize=(5.0, 3.2), dpi=100)
    axes = figure.add_axes((0.13, 0.16, 0.84, 0.74))
    for label, (scores, color) in named.items():
        counts = np.histogram(scores.double().numpy(), edges)[0] / (len(scores) * (edges[1] - edges[0]))
        axes.stairs(counts, edges, fill=True, alpha=0.55, color=color, label=f"{label} ({len(scores)})")
    axes.set_xlabel("critic score T (nats)")
    axes.set_ylabel("density")
    axes.set_title(title, fontsize=10)
    axes.legend(loc="upper right", fontsize=8)
    return figure


def scatter_by_label(axes: Axes, points: NDArray[Any], labels: NDArray[Any], size: float) -> None:
    """Draw points, (N, 2), in the colors of their labels, (N,)."""
    cmap = "tab10" if labels.max() < 10 else "nipy_spectral"
    axes.scatter(points[:, 0], points[:, 1], c=labels, cmap=cmap, s=size, linewidths=0)


def feature_figure(points: Tensor, labels: Tensor, title: str) -> Figure:
    """Features in two dimensions, colored by label.

    Args:
        points: (N, 2) coordinates.
        labels: (N,) integers.
        title: Title of the figure.

    Example:
        >>> import torch
        >>> len(feature_figure(torch.zeros(4, 2), torch.arange(4), "step 10").axes[0].collections)
        1
    """
    figure = Figure(figsize=(4.4, 4.0), dpi=100)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.9))
    scatter_by_label(axes, points.numpy(), labels.numpy(), size=8)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{title}, first two principal components, colored by label", fontsize=9)
    return figure
