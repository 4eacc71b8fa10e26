"""One line per bound, regularizer, pairing and critic: the generic tests run over all lines."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from lightning_mi import bounds, critics, pairs, regularizers
from tests.helpers import critic_formulas, reference
from tests.helpers import pairs_by_definition as definition
from tests.helpers.layouts import LAYOUTS, Layout
from tests.helpers.pairs_by_definition import Pairs
from tests.helpers.reference import Reading, Sheet

LEARNED_WEIGHT, LEARNED_BIAS = np.array([0.7, -0.4]), 0.3  # log a(y) = y . weight + bias
MINE_RATE, MINE_AVERAGE = 0.25, 0.7


@dataclass(frozen=True)
class BoundSpec:
    """A bound, its independent reference, and its properties in theory.

    Attributes:
        name: The class, with the arguments that differ from the defaults.
        make: Returns a new bound.
        reference: The terms of the bound on a sheet, by the independent formula.
        optimum: The optimal critic is the log density ratio plus this constant; None if it depends on y.
        has_maximum: The objective is highest at the optimal critic; False if another critic exceeds it.
        gap: The value at the optimal critic minus the mutual information, with exact expectations.
        log_normalizer: The log-normalizer at the optimal critic; None if the bound has another quantity in its place.
        marginal_of_log_normalizer: For every critic the marginal term is a function of the log-normalizer,
            :meth:`AbstractBound.marginal_at`.
        value_shift_invariant: A constant added to all scores does not change the value.
        objective_shift_invariant: A constant added to all scores does not change the objective.
        exceeds: For some critic the value exceeds the mutual information, with exact expectations.
        needs_rows: The bound compares the pairs of one x, so two lists of pairs are an error.
        exponentiates_difference: The gradient contains the exponential of a difference of two large numbers, which are
            exact to one unit in the last place.
        with_baseline: Makes the bound with another network as its learned baseline; None for a bound without one.
    """

    name: str
    make: Callable[[], bounds.AbstractBound]
    reference: Callable[[Sheet], Reading]
    optimum: float | None = 0.0
    has_maximum: bool = True
    gap: float = 0.0
    log_normalizer: float | None = 0.0
    marginal_of_log_normalizer: bool = True
    value_shift_invariant: bool = False
    objective_shift_invariant: bool = False
    exceeds: bool = False
    needs_rows: bool = False
    exponentiates_difference: bool = False
    with_baseline: Callable[[nn.Module], bounds.AbstractBound] | None = None

    @property
    def has_learned_baseline(self) -> bool:
        return self.with_baseline is not None


# A constant added to all scores changes nothing but the log-normalizer.
_shift_invariant = partial(BoundSpec, value_shift_invariant=True, objective_shift_invariant=True)
# The marginal term is that of clipped scores, or of other scores than the log-normalizer's.
_other_marginal = partial(BoundSpec, marginal_of_log_normalizer=False)


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
    _shift_invariant("DV", bounds.DV, reference.dv),
    _shift_invariant("MINE", _started_mine, _mine, exponentiates_difference=True),
    _other_marginal("SMILE", partial(bounds.SMILE, tau=2.0), partial(reference.smile, tau=2.0), has_maximum=False,
                    exceeds=True),
    _other_marginal("SMILE(js)", partial(bounds.SMILE, tau=2.0, objective="js"),
                    partial(reference.smile, tau=2.0, objective="js"), exceeds=True),
    _other_marginal("SMILE(clip_joint)", partial(bounds.SMILE, tau=2.0, clip_joint=True),
                    partial(reference.smile, tau=2.0, clip_joint=True)),
    _shift_invariant("InfoNCE", bounds.InfoNCE, reference.infonce, needs_rows=True),
    BoundSpec("NWJ", bounds.NWJ, partial(reference.nwj, cap=1.0), optimum=1.0),
    BoundSpec("NWJ(cap=None)", partial(bounds.NWJ, cap=None), partial(reference.nwj, cap=None), optimum=1.0),
    BoundSpec("TUBA", bounds.TUBA, partial(reference.tuba, log_a=0.0, cap=1.0)),
    BoundSpec("TUBA(2.5)", partial(bounds.TUBA, baseline=2.5, cap=0.5),
              partial(reference.tuba, log_a=np.log(2.5), cap=0.5), optimum=float(np.log(2.5))),
    BoundSpec("TUBA(cap=None)", partial(bounds.TUBA, cap=None), partial(reference.tuba, log_a=0.0, cap=None)),
    BoundSpec("TUBA(learned)", _learned_tuba, _learned_tuba_reference, optimum=None, exponentiates_difference=True,
              with_baseline=bounds.TUBA),
    BoundSpec("JS", bounds.JS, reference.js),
    _other_marginal("ReleasedNWJ", partial(bounds.ReleasedNWJ, clip=2.5),
                    partial(reference.released, clip=2.5, shift=1.0), optimum=1.0, log_normalizer=1.0),
    _other_marginal("ReleasedTUBA", partial(bounds.ReleasedTUBA, clip=2.5),
                    partial(reference.released, clip=2.5, shift=0.0)),
    _other_marginal("ReleasedJS", bounds.ReleasedJS, reference.released_js, gap=-float(np.exp(-1)),
                    log_normalizer=None),
]
# fmt: on


def _declaration(spec: BoundSpec) -> tuple[str, bool, bool]:
    bound = spec.make()
    return bound.marginal_pooling, bound.capped_at_log_n, bound.self_normalized


# One bound for each combination of declarations: metrics depend on nothing else of a bound.
BOUND_KINDS = list({_declaration(spec): spec for spec in reversed(BOUNDS)}.values())[::-1]
# One bound for each reduction of scores; pairings depend on nothing else of a bound: a log-mean-exp, clipped, with an
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
    """A pairing, the inputs that it takes, and its pairs.

    Attributes:
        name: The class.
        make: Returns a new pairing.
        inputs: The names of its inputs, as errors list them.
        pairs_of: The pairs of the n samples of :meth:`views`, by definition: the feature of sample i is i in the first
            view, 20 + i in the second, 40 + i in the third.
        has_rows: InfoNCE can use it.
        needs_two: A training batch needs two samples.
        local_pairs: With several ranks, each rank pairs its local samples, also in training. ``marginal_columns`` of
            its scores is the row of y of each marginal pair.
        candidates_are_labels: The candidates are the classes, so it needs a critic of labels.
    """

    name: str
    make: Callable[..., pairs.AbstractPairing]
    inputs: str
    pairs_of: Callable[[int], Pairs]
    has_rows: bool = True
    needs_two: bool = True
    local_pairs: bool = False
    candidates_are_labels: bool = False

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
    PairingSpec("AllPairs", pairs.AllPairs, "x, y", definition.all_pairs),
    PairingSpec("TwoViews", pairs.TwoViews, "x, y", definition.two_views),
    PairingSpec("Derangement", pairs.Derangement, "x, y", definition.derangement, has_rows=False, local_pairs=True),
    PairingSpec("IndependentMarginal", pairs.IndependentMarginal, "x, y, x_marginal, y_marginal",
                definition.independent, has_rows=False, needs_two=False),
    PairingSpec("SameLabel", pairs.SameLabel, "x, labels", definition.same_label),
    PairingSpec("EnumeratedLabels", partial(pairs.EnumeratedLabels, 4), "x, labels", definition.enumerated,
                needs_two=False, candidates_are_labels=True),
]
# fmt: on


@dataclass(frozen=True)
class CriticSpec:
    """A critic of two representations of ``dim`` features.

    Attributes:
        name: The critic, with the options that differ from the defaults.
        make: Returns a new critic for representations of that width.
        reference: The scores (N, M) of the critic, x (N, dim) and y (M, dim), by the definition in float64 NumPy.
    """

    name: str
    make: Callable[[int], critics.AbstractCritic]
    reference: critic_formulas.Formula

    @property
    def has_tiles(self) -> bool:
        view = torch.zeros(2, 3)
        return self.make(3).tiles(view, view) is not None


def _calibrated(dim: int) -> critics.AbstractCritic:
    critic = critics.CalibratedCritic(critics.BilinearCritic(dim, dim), scale=True, offset_unit=1.0)
    with torch.no_grad():
        critic.offset.fill_(-1.5)
        critic.log_scale.fill_(0.4)
    return critic


def _gaussian(dim: int) -> critics.AbstractCritic:
    """With canonical variables, and a residual as after training."""
    critic = critics.GaussianCopulaCritic(dim, dim)
    x = torch.randn(50, dim, generator=torch.Generator().manual_seed(0))
    y = x.roll(1, 1) + torch.randn(50, dim, generator=torch.Generator().manual_seed(1))
    critic.fit((x, y), (x, y))
    assert isinstance(critic.residual, critics.SeparableCritic)
    for parameter in critic.residual.y_net[-1].parameters():
        nn.init.constant_(parameter, 0.1)
    return critic


# fmt: off
CRITICS = [
    CriticSpec("inner product", lambda dim: critics.InnerProductCritic(), critic_formulas.inner_product),
    CriticSpec("cosine", lambda dim: critics.InnerProductCritic(normalize=True, temperature=0.2, scaled=True),
               critic_formulas.inner_product),
    CriticSpec("bilinear", lambda dim: critics.BilinearCritic(dim, dim), critic_formulas.bilinear),
    CriticSpec("separable", lambda dim: critics.SeparableCritic(dim, dim, hidden=(8, 7), embed_dim=2),
               critic_formulas.separable),
    CriticSpec("joint", lambda dim: critics.JointCritic(dim, dim, hidden=(8, 7)), critic_formulas.joint),
    CriticSpec("joint, no output bias", lambda dim: critics.JointCritic(dim, dim, hidden=(8,), output_bias=False),
               critic_formulas.joint),
    CriticSpec("joint and separable", lambda dim: critics.JointCritic(dim, dim, hidden=(8,), separable_dim=2),
               critic_formulas.joint),
    CriticSpec("Gaussian copula", _gaussian, critic_formulas.gaussian_copula),
    CriticSpec("calibrated", _calibrated, partial(critic_formulas.calibrated, formula=critic_formulas.bilinear)),
]
# fmt: on


def by_name(spec: BoundSpec | RegularizerSpec | PairingSpec | CriticSpec | Layout) -> str:
    """For ``pytest.mark.parametrize(ids=...)``."""
    return spec.name


def layouts_of(bound: BoundSpec) -> list[Layout]:
    """The layouts that a bound accepts."""
    return [layout for layout in LAYOUTS if layout.has_rows or not bound.needs_rows]


CASES = [(bound, layout) for bound in BOUNDS for layout in layouts_of(bound)]
CASE_IDS = [f"{bound.name}-{layout.name}" for bound, layout in CASES]
