"""One line per bound, regularizer, pairing, critic and layout of scores: the generic tests run over all lines."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from lightning_mi import Scores, bounds, critics, pairs, regularizers
from tests.helpers import reference
from tests.helpers.reference import Reading, Sheet

LEARNED_WEIGHT, LEARNED_BIAS = np.array([0.7, -0.4]), 0.3  # log a(y) = y . weight + bias
MINE_RATE, MINE_AVERAGE = 0.25, 0.7


@dataclass(frozen=True)
class BoundSpec:
    """A bound, its independent reference, and its properties in theory.

    Attributes:
        reference: The terms of the bound on a sheet, by the independent formula.
        optimum: The critic with the highest objective is the log density ratio plus this; None if it depends on y.
        gap: The value at that critic minus the mutual information; None if it depends on the law.
        log_normalizer: The log-normalizer at that critic; None if it depends on the law.
        shift_invariant: A constant added to all scores changes neither value nor objective.
        exceeds: Some critic reads more than the mutual information, with exact expectations.
    """

    name: str
    make: Callable[[], bounds.AbstractBound]
    reference: Callable[[Sheet], Reading]
    optimum: float | None = 0.0
    gap: float | None = 0.0
    log_normalizer: float | None = 0.0
    shift_invariant: bool = False
    exceeds: bool = False

    @property
    def needs_rows(self) -> bool:
        return self.name.startswith("InfoNCE")

    @property
    def has_learned_baseline(self) -> bool:
        return self.name == "TUBA(learned)"


def _started_mine() -> bounds.MINE:
    bound = bounds.MINE(ema_rate=MINE_RATE)
    bound.load_state_dict({"log_average": torch.tensor(MINE_AVERAGE), "num_updates": torch.tensor(3)})
    return bound.double()


def _learned_tuba() -> bounds.TUBA:
    baseline = nn.Linear(2, 1).double()
    with torch.no_grad():
        baseline.weight.copy_(torch.tensor(LEARNED_WEIGHT))
        baseline.bias.fill_(LEARNED_BIAS)
    return bounds.TUBA(baseline)


def _learned_tuba_reference(sheet: Sheet) -> Reading:
    return reference.tuba(sheet, sheet.y @ LEARNED_WEIGHT + LEARNED_BIAS, cap=1.0)


_mine = partial(reference.mine, rate=MINE_RATE, log_average=np.float64(np.float32(MINE_AVERAGE)))

# fmt: off
BOUNDS = [
    BoundSpec("DV", bounds.DV, reference.dv, shift_invariant=True),
    BoundSpec("MINE", _started_mine, _mine, shift_invariant=True),
    BoundSpec("SMILE", partial(bounds.SMILE, tau=2.0), partial(reference.smile, tau=2.0), exceeds=True),
    BoundSpec("SMILE(js)", partial(bounds.SMILE, tau=2.0, objective="js"),
              partial(reference.smile, tau=2.0, objective="js"), exceeds=True),
    BoundSpec("SMILE(clip_joint)", partial(bounds.SMILE, tau=2.0, clip_joint=True),
              partial(reference.smile, tau=2.0, clip_joint=True)),
    BoundSpec("InfoNCE", bounds.InfoNCE, reference.infonce, gap=None, log_normalizer=None, shift_invariant=True),
    BoundSpec("NWJ", bounds.NWJ, partial(reference.nwj, cap=1.0), optimum=1.0),
    BoundSpec("NWJ(cap=None)", partial(bounds.NWJ, cap=None), partial(reference.nwj, cap=None), optimum=1.0),
    BoundSpec("TUBA", bounds.TUBA, partial(reference.tuba, log_a=0.0, cap=1.0)),
    BoundSpec("TUBA(2.5)", partial(bounds.TUBA, baseline=2.5, cap=0.5),
              partial(reference.tuba, log_a=np.log(2.5), cap=0.5), optimum=float(np.log(2.5))),
    BoundSpec("TUBA(cap=None)", partial(bounds.TUBA, cap=None), partial(reference.tuba, log_a=0.0, cap=None)),
    BoundSpec("TUBA(learned)", _learned_tuba, _learned_tuba_reference, optimum=None),
    BoundSpec("JS", bounds.JS, reference.js),
    BoundSpec("ReleasedNWJ", partial(bounds.ReleasedNWJ, clip=2.5), partial(reference.released, clip=2.5, shift=1.0),
              optimum=1.0, log_normalizer=1.0),
    BoundSpec("ReleasedTUBA", partial(bounds.ReleasedTUBA, clip=2.5),
              partial(reference.released, clip=2.5, shift=0.0)),
    BoundSpec("ReleasedJS", bounds.ReleasedJS, reference.released_js, gap=-float(np.exp(-1)), log_normalizer=None),
]
# fmt: on


def _declaration(spec: BoundSpec) -> tuple[str, bool, bool]:
    bound = spec.make()
    return bound.marginal_pooling, bound.capped_at_log_n, bound.self_normalized


# One bound for each combination of declarations: all that metrics can see of a bound.
BOUND_KINDS = list({_declaration(spec): spec for spec in reversed(BOUNDS)}.values())[::-1]
# One bound for each reduction of scores, all that a pairing can see of a bound: a log-mean-exp, clipped, with an
# offset, or in rows, and a softplus.
REDUCTIONS = [spec for spec in BOUNDS if spec.name in ("DV", "SMILE", "TUBA(learned)", "InfoNCE", "JS")]


@dataclass(frozen=True)
class RegularizerSpec:
    """A kind of regularizer and its distance, with the distance's slope."""

    name: str
    make: Callable[..., regularizers.AbstractRegularizer]
    distance: Callable[[float], tuple[float, float]]
    scale: str = "log"

    def penalty(self, reading: Reading, weight: float, target: float) -> tuple[float, np.ndarray]:
        """The penalty and its gradient with respect to the scores."""
        ell, d_ell = reading.log_normalizer, reading.d_log_normalizer
        if self.scale == "log":
            distance, slope = self.distance(ell - target)
        else:
            distance, slope = self.distance(np.exp(ell) - np.exp(target))
            slope = slope * np.exp(ell)
        return weight * distance, weight * slope * d_ell


# fmt: off
DISTANCES: list[tuple[str, Callable[..., regularizers.AbstractRegularizer], Callable[[float], tuple[float, float]]]] = [
    ("Squared", regularizers.Squared, reference.squared),
    ("Absolute", regularizers.Absolute, reference.absolute),
    ("Huber", partial(regularizers.Huber, delta=0.3), partial(reference.huber, delta=0.3)),
]
REGULARIZERS = [
    RegularizerSpec(f"{name}-{scale}", partial(make, scale=scale), distance, scale)
    for scale in ("log", "linear")
    for name, make, distance in DISTANCES
]
# fmt: on


@dataclass(frozen=True)
class PairingSpec:
    """A pairing and the inputs that it takes.

    Attributes:
        inputs: The names of its inputs, as errors list them.
        has_rows: InfoNCE can use it.
        needs_two: A training batch needs two samples.
    """

    name: str
    make: Callable[..., pairs.AbstractPairing]
    inputs: str
    has_rows: bool = True
    needs_two: bool = True

    @property
    def takes_labels(self) -> bool:
        return "labels" in self.inputs

    def views(self, n: int, width: int = 1) -> list[Tensor]:
        """n samples whose features are their numbers; two samples share a label."""
        count = len(self.inputs.split(", ")) - self.takes_labels
        views = [torch.arange(20 * i, 20 * i + n).double()[:, None].expand(n, width) for i in range(count)]
        return [*views, torch.arange(n) // 2] if self.takes_labels else views


# fmt: off
PAIRINGS = [
    PairingSpec("AllPairs", pairs.AllPairs, "x, y"),
    PairingSpec("TwoViews", pairs.TwoViews, "x, y"),
    PairingSpec("Derangement", pairs.Derangement, "x, y", has_rows=False),
    PairingSpec("IndependentMarginal", pairs.IndependentMarginal, "x, y, x_marginal, y_marginal", has_rows=False,
                needs_two=False),
    PairingSpec("SameLabel", pairs.SameLabel, "x, labels"),
    PairingSpec("EnumeratedLabels", partial(pairs.EnumeratedLabels, 4), "x, labels", needs_two=False),
]
# fmt: on


@dataclass(frozen=True)
class CriticSpec:
    """A critic of two representations of ``dim`` features."""

    name: str
    make: Callable[[int], critics.AbstractCritic]


def _calibrated(dim: int) -> critics.AbstractCritic:
    critic = critics.CalibratedCritic(critics.BilinearCritic(dim, dim), scale=True, offset_unit=1.0)
    with torch.no_grad():
        critic.offset.fill_(-1.5)
        critic.log_scale.fill_(0.4)
    return critic


# fmt: off
CRITICS = [
    CriticSpec("inner product", lambda dim: critics.InnerProductCritic()),
    CriticSpec("cosine", lambda dim: critics.InnerProductCritic(normalize=True, temperature=0.2, scaled=True)),
    CriticSpec("bilinear", lambda dim: critics.BilinearCritic(dim, dim)),
    CriticSpec("separable", lambda dim: critics.SeparableCritic(dim, dim, hidden=(8, 7), embed_dim=2)),
    CriticSpec("joint", lambda dim: critics.JointCritic(dim, dim, hidden=(8, 7))),
    CriticSpec("joint, no output bias", lambda dim: critics.JointCritic(dim, dim, hidden=(8,), output_bias=False)),
    CriticSpec("calibrated", _calibrated),
]
# fmt: on


@dataclass(frozen=True)
class Layout:
    """The layout of scores: a matrix without or with masks, or two lists, one after the other."""

    name: str
    joint: np.ndarray
    marginal: np.ndarray
    columns: np.ndarray  # the candidate of each score

    @property
    def has_rows(self) -> bool:
        return self.joint.ndim == 2

    @property
    def y(self) -> np.ndarray:
        """The candidates' representations."""
        return np.random.default_rng(7).normal(size=(self.columns.max() + 1, 2))

    def draw(self, seed: int = 0, mean: float = 0.0, std: float = 1.5) -> np.ndarray:
        """Normal scores, float64."""
        return np.random.default_rng(seed).normal(mean, std, self.joint.shape)

    def sheet(self, t: np.ndarray, y: np.ndarray | None = None) -> Sheet:
        """For the reference."""
        return Sheet(t, self.joint, self.marginal, (self.y if y is None else y)[self.columns])

    def scores(self, t: Tensor, y: Tensor | None = None) -> Scores:
        """For the package."""
        if y is None:
            y = torch.as_tensor(self.y)
        if not self.has_rows:
            split = int(self.joint.sum())
            columns = torch.as_tensor(self.columns)
            default = np.array_equal(self.columns, np.arange(len(t)))
            kwargs = {} if default else {"joint_columns": columns[:split], "marginal_columns": columns[split:]}
            return Scores.from_samples(t[:split], t[split:], y=y, **kwargs)
        if self.name == "diagonal":
            return Scores.from_matrix(t, y=y)
        return Scores.from_matrix(t, joint=torch.as_tensor(self.joint), marginal=torch.as_tensor(self.marginal), y=y)


def _diagonal(n: int) -> Layout:
    eye = np.eye(n, dtype=bool)
    return Layout("diagonal", eye, ~eye, np.broadcast_to(np.arange(n), (n, n)))


def _masks() -> Layout:
    # Rows with two joint pairs, without any, without marginal pairs, without pairs; an entry that is both.
    joint, marginal = np.zeros((6, 7), bool), np.zeros((6, 7), bool)
    joint[[0, 0, 1, 4, 5], [1, 3, 2, 0, 6]] = True
    marginal[0, 4:] = marginal[1] = marginal[2, ::2] = marginal[5, :5] = True
    return Layout("masks", joint, marginal, np.broadcast_to(np.arange(7), (6, 7)))


def _lists(columns: list[int] | None = None) -> Layout:
    is_joint = np.arange(9) < 4
    name = "lists" if columns is None else "lists with columns"
    return Layout(name, is_joint, ~is_joint, np.arange(9) if columns is None else np.array(columns))


LAYOUTS = [_diagonal(6), _masks(), _lists(), _lists([2, 0, 3, 1, 3, 2, 0, 0, 4])]


def by_name(spec: BoundSpec | RegularizerSpec | PairingSpec | CriticSpec | Layout) -> str:
    """For ``pytest.mark.parametrize(ids=...)``."""
    return spec.name


def layouts_of(bound: BoundSpec) -> list[Layout]:
    """The layouts that a bound accepts."""
    return [layout for layout in LAYOUTS if layout.has_rows or not bound.needs_rows]


CASES = [(bound, layout) for bound in BOUNDS for layout in layouts_of(bound)]
CASE_IDS = [f"{bound.name}-{layout.name}" for bound, layout in CASES]
