"""Figure of an estimate."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray


class Drawable(Protocol):
    """What the figure shows of a result; see :class:`lightning_mi.MIEstimate`."""

    @property
    def mi(self) -> float: ...  # noqa: D102
    @property
    def lower(self) -> float: ...  # noqa: D102
    @property
    def units(self) -> str: ...  # noqa: D102
    @property
    def pointwise(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def learning_curve(self) -> Sequence[Any]: ...  # noqa: D102
    @property
    def scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...  # noqa: D102


def draw(result: Drawable) -> Figure:
    """The learning curve, the scores of joint and marginal pairs, and the pointwise MI."""
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    curve, scores, pointwise = figure.subplots(1, 3)
    points = result.learning_curve
    numbers, values = [point.num_train for point in points], [point.mi for point in points]
    curve.errorbar(numbers, values, yerr=[1.96 * point.standard_error for point in points], marker="o", capsize=3)
    curve.axhline(result.mi, color="black", linestyle="--", label=f"estimate, {result.mi:.2f}")
    curve.axhline(result.lower, color="gray", linestyle=":", label=f"lower limit, {result.lower:.2f}")
    curve.set(title="Learning curve", xlabel="samples for the fit", ylabel=f"MI, {result.units}")
    curve.legend()
    joint, marginal = result.scores
    edges = np.histogram_bin_edges(np.concatenate([joint, marginal]), bins=60)
    for values_of_kind, label in ((joint, "joint pairs"), (marginal, "marginal pairs")):
        scores.hist(values_of_kind, bins=edges.tolist(), density=True, alpha=0.6, label=label)
    scores.set(title="Scores of held-out pairs", xlabel="log density ratio, nats", yticks=[])
    scores.legend()
    pointwise.hist(result.pointwise, bins=60)
    pointwise.axvline(float(result.pointwise.mean()), color="black", linestyle="--", label="mean")
    pointwise.set(title="Pointwise MI of the samples", xlabel=result.units, yticks=[])
    pointwise.legend()
    return figure
