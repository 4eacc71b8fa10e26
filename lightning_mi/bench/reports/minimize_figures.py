"""The figure of the benchmark of minimization. Colors: the color-blind safe palette of Okabe and Ito."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_mi.bench.minimize.cell import MinimizeCell
from lightning_mi.bench.minimize.methods import NO_PENALTY, WITHOUT_CRITIC
from lightning_mi.bench.reports.figures import legend_and_save, panels, smooth

_COLORS = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
_SPAN = 50  # steps
_LINEAR = 0.1  # nats around 0 in which the axis is linear; beyond, it is logarithmic


def mi_figure(runs: Sequence[tuple[MinimizeCell, dict[str, Any]]], path: Path) -> None:
    """One panel per method: exact I(z; s), mean and range over seeds, and the mean estimate, over steps.

    Args:
        runs: Cells with their results; at least one with a critic.
        path: The PNG file.
    """
    methods = [name for name in dict.fromkeys(cell.method for cell, _ in runs) if name not in WITHOUT_CRITIC]
    every_count = list(dict.fromkeys(cell.critic_steps for cell, _ in runs if cell.critic_steps is not None))
    references = {name: [result for cell, result in runs if cell.method == name] for name in WITHOUT_CRITIC}
    figure, axes = panels(len(methods), columns=4)
    for panel, method in zip(axes, methods, strict=True):
        for (name, group), style in zip(references.items(), ("--", "-."), strict=True):
            if group:
                mean = _stack(group, "mi_nuisance").mean(axis=0)
                panel.plot(
                    mean,
                    color="black",
                    linestyle=style,
                    linewidth=0.8,
                    label="without a penalty" if name == NO_PENALTY else "exact penalty",
                )
        for steps in every_count:
            group = [result for cell, result in runs if (cell.method, cell.critic_steps) == (method, steps)]
            if not group:
                continue
            color = _COLORS[every_count.index(steps) % len(_COLORS)]
            exact, noun = _stack(group, "mi_nuisance"), "critic step" if steps == 1 else "critic steps"
            panel.fill_between(
                np.arange(exact.shape[1]), exact.min(axis=0), exact.max(axis=0), color=color, alpha=0.25, linewidth=0
            )
            panel.plot(exact.mean(axis=0), color=color, linewidth=1.2, label=f"{steps} {noun}, exact")
            estimate = _stack(group, "estimate").mean(axis=0)
            if len(estimate):
                panel.plot(
                    smooth(estimate, _SPAN),
                    color=color,
                    linewidth=1.0,
                    linestyle=":",
                    label=f"{steps} {noun}, estimate",
                )
        panel.set_yscale("symlog", linthresh=_LINEAR)
        panel.set_title(method)
        panel.set_xlabel("step")
        panel.set_ylabel("I(z; s), nats")
    title = f"Exact I(z; s), mean and range over seeds, and estimate of the penalty (average of span {_SPAN})"
    legend_and_save(figure, axes, path, title=title)


def _stack(results: Sequence[dict[str, Any]], name: str) -> NDArray[np.float64]:
    """(seeds, steps) curves, cut to the shortest."""
    length = min(len(result[name]) for result in results)
    return np.array([result[name][:length] for result in results], dtype=np.float64)
