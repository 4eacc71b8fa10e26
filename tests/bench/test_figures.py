"""Titles and legends fit into the figure."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from lightning_mi.bench.reports.figures import legend_and_save, panels
from lightning_mi.bench.reports.image_figures import accuracy_figure

LONG = "A title that is wider than a figure of a single panel, like that of a grid with one loss"


def border(path: Path) -> float:
    """Brightness of the darkest pixel at the border; 1 is white."""
    pixels = imread(path)[..., :3]
    return float(min(edge.min() for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])))


@pytest.mark.parametrize("labels", [1, 8])
def test_title_and_legend_fit_one_panel(labels: int, tmp_path: Path) -> None:
    figure, axes = panels(1, columns=4)
    for index in range(labels):
        axes[0].plot([0, 1], [index, 1], label=f"regularized, weight {index}")
    legend_and_save(figure, axes, tmp_path / "figure.png", title=LONG)
    assert border(tmp_path / "figure.png") > 0.99


def test_legend_of_a_weight_sweep_fits(tmp_path: Path) -> None:
    rows = [
        {"loss": "DV", "variant": variant, "weight": weight, "seed": seed, "accuracy": 0.9 + 0.01 * seed}
        for variant, weights in (("original", [0.0]), ("regularized", [0.1, 0.01, 0.001]), ("published", [0.1, 0.01]))
        for weight in weights
        for seed in (0, 1)
    ]
    accuracy_figure(rows, tmp_path / "figure.png")
    assert border(tmp_path / "figure.png") > 0.99


def test_missing_variant_has_no_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(
        "lightning_mi.bench.reports.image_figures.legend_and_save",
        lambda figure, axes, path, title: drawn.append((axes, title)),
    )
    row = {"weight": 0.0, "seed": 0, "accuracy": 0.5}
    rows = [{"loss": "DV", "variant": "original", **row}, {"loss": "NWJ", "variant": "regularized", **row}]
    accuracy_figure(rows, tmp_path / "figure.png")
    [([panel], title)] = drawn
    heights = [bar.get_height() for bars in panel.containers for bar in getattr(bars, "patches", [])]
    assert sum(np.isfinite(heights)) == 2
    assert "one seed" in title
