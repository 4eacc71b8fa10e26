"""MIEstimate: the result of an estimation."""

import dataclasses
import html
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_mi.estimation.figure import draw

if TYPE_CHECKING:
    import pandas as pd

Units = Literal["nats", "bits"]


class Finding(NamedTuple):
    """Something about the data or the fit that limits what the estimate means.

    Attributes:
        code: A fixed identifier, such as ``"heavy_tails"``.
        text: What was found, with its figures.
        remedy: What to do.
        level: ``"warning"`` if the estimate or a limit may be wrong, ``"note"`` for a property of the data that was
            dealt with.

    Example:
        >>> Finding("few_samples", "20 samples", "Draw more.").level
        'warning'
    """

    code: str
    text: str
    remedy: str
    level: Literal["warning", "note"] = "warning"


class LearningCurvePoint(NamedTuple):
    """The estimate with critics fitted to some of the samples.

    Attributes:
        num_train: Samples that each critic was fitted to.
        mi: The estimate.
        standard_error: Its standard error.
    """

    num_train: int
    mi: float
    standard_error: float


@final
@dataclass(frozen=True)
class MIEstimate:
    """The result of :func:`lightning_mi.estimate`: the MI of two arrays, or given z; all values in ``units``.

    No distribution-free method certifies a large MI: with high probability, a lower confidence limit from n samples is
    not above about log n. A finding is reported if the estimate is near that ceiling.

    Attributes:
        mi: The estimate: the value of the bound on samples that its critics were not fitted to, extrapolated to
            infinitely many samples for the fit.
        lower: A lower confidence limit. It does not rest on the extrapolation: the value of a lower bound minus its
            sampling error is below the MI for any critic. A conditional MI is a difference, so that its limit rests on
            the extrapolation of I(x; z), and on nothing else.
        upper: The extrapolated value plus its error, and that of the rise over folds. It assumes that the critics can
            learn the dependence and that the error falls with the square root of the samples; None without an
            extrapolation.
        standard_error: Sampling error of the value before extrapolation. It leaves out the error of the critics, which
            makes the value too low, and that of the extrapolation.
        p_value: Of independence, by permutation of the held-out scores, without refitting. Of conditional independence
            given labels, by permutation within labels. NaN given numbers: no test that is valid for all laws has power;
            use ``lower``.
        confidence: Probability of ``lower`` and of the interval from ``lower`` to ``upper``.
        units: ``"nats"`` or ``"bits"``.
        num_samples: n.
        kinds: Whether x and y, and z for a conditional MI, are continuous, discrete or mixed.
        pointwise: (n,) log p(x, y) / (p(x) p(y)) of each sample, by critics that were not fitted to it; conditional,
            log p(x, y | z) / (p(x | z) p(y | z)).
        learning_curve: The estimate against the number of samples for the fit.
        cross_checks: Other estimates by name: ``gaussian_copula``, ``nearest_neighbors`` for one column each, and
            ``plug_in``, the mean score of the critics as trained, if a regularizer held their log-normalizer at 0.
        findings: What limits the meaning of the estimate.
        scores: Two arrays, a sample of the held-out scores of joint pairs and of marginal pairs; conditional, those
            of x and (y, z).
        complete: False if Ctrl-C ended the estimation; a finding states what is missing.

    Source: McAllester and Stratos 2020 (the ceiling); Shah and Peters 2020 (conditional independence).
    """

    mi: float
    lower: float
    upper: float | None
    standard_error: float
    p_value: float
    confidence: float
    units: Units
    num_samples: int
    kinds: tuple[str, ...]
    pointwise: NDArray[np.float64] = dataclasses.field(repr=False)
    learning_curve: tuple[LearningCurvePoint, ...]
    cross_checks: dict[str, float]
    findings: tuple[Finding, ...]
    scores: tuple[NDArray[np.float64], NDArray[np.float64]] = dataclasses.field(repr=False)
    complete: bool = True

    def __str__(self) -> str:
        """Three lines: the estimate and its limits, the samples and the test, and the findings."""
        upper = "-" if self.upper is None else f"{self.upper:.3f}"
        levels = {level: self._codes(level) for level in ("warning", "note")}
        codes = "; ".join(f"{level}s: {codes}" for level, codes in levels.items() if codes) or "no findings"
        kinds = ", ".join(f"{name} {kind}" for name, kind in zip("xyz", self.kinds, strict=False))
        test = "conditional independence" if self.conditional else "independence"
        p_value = "not tested" if math.isnan(self.p_value) else f"p = {self.p_value:.3g}"
        return (
            f"{'' if self.complete else 'INCOMPLETE: '}{self._name} = {self.mi:.3f} {self.units}, "
            f"{self.confidence:.0%} limits {self.lower:.3f} to {upper}\n"
            f"{self.num_samples:,} samples, {kinds}; {test} {p_value}\n"
            f"{codes}"
        )

    def _codes(self, level: str) -> str:
        return ", ".join(dict.fromkeys(finding.code for finding in self.findings if finding.level == level))

    @property
    def conditional(self) -> bool:
        """Whether it is the conditional MI given z."""
        return len(self.kinds) > 2

    @property
    def _name(self) -> str:
        return "conditional MI" if self.conditional else "MI"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = [(self._name, f"{self.mi:.3f} {self.units}"), ("lower", f"{self.lower:.3f}")]
        rows.append(("upper", "-" if self.upper is None else f"{self.upper:.3f}"))
        p_value = "-" if math.isnan(self.p_value) else f"{self.p_value:.3g}"
        rows += [("standard error", f"{self.standard_error:.3f}"), ("p-value", p_value)]
        rows += [(name.replace("_", " "), f"{value:.3f}") for name, value in self.cross_checks.items()]
        rows += [(finding.code, f"{finding.text} {finding.remedy}") for finding in self.findings]
        cells = "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows)
        return f"<table>{cells}</table>"

    def to_json(self) -> str:
        """All numbers but the arrays, as a JSON object; NaN becomes null."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("pointwise", "scores")
        }
        values["learning_curve"] = [point._asdict() for point in self.learning_curve]
        values["findings"] = [finding._asdict() for finding in self.findings]
        return json.dumps(_without_nan(values), indent=2)

    def to_frame(self) -> "pd.DataFrame":
        """One row with the numbers, as a pandas data frame.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd

        names = ("mi", "lower", "upper", "standard_error", "p_value", "units", "num_samples")
        row = {name: getattr(self, name) for name in names} | self.cross_checks
        return pd.DataFrame([row | {"findings": ", ".join(finding.code for finding in self.findings)}])

    def plot(self) -> Figure:
        """The learning curve, the scores of joint and marginal pairs, and the pointwise MI."""
        return draw(self)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
