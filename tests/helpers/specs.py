"""One line per bound, regularizer and pairing: the generic tests run over all lines."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from lightning_mi import bounds, pairs, regularizers
from tests.helpers import pairs_by_definition as definition
from tests.helpers import reference
from tests.helpers.critic_specs import CriticSpec
from tests.helpers.layouts import LAYOUTS, Layout
from tests.helpers.pairs_by_definition import Pairs
from tests.helpers.reference import Reading, Sheet

COUNTS = np.array([[5, 1, 1], [1, 4, 2], [1, 1, 4]])  # of the law in tests/helpers/law.py
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
        averages_exponentials: Marginal pairs count by their exponentials, so that minus infinity is a weight of zero.
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
    averages_exponentials: bool = True
    with_baseline: Callable[[nn.Module], bounds.AbstractBound] | None = None

    @property
    def needs_log_density(self) -> bool:
        return self.make().needs_log_density

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
    _shift_invariant("DCL", bounds.DCL, reference.dcl, needs_rows=True),
    BoundSpec("NWJ", bounds.NWJ, partial(reference.nwj, cap=1.0), optimum=1.0),
    BoundSpec("NWJ(cap=None)", partial(bounds.NWJ, cap=None), partial(reference.nwj, cap=None), optimum=1.0),
    BoundSpec("TUBA", bounds.TUBA, partial(reference.tuba, log_a=0.0, cap=1.0)),
    BoundSpec("TUBA(2.5)", partial(bounds.TUBA, baseline=2.5, cap=0.5),
              partial(reference.tuba, log_a=np.log(2.5), cap=0.5), optimum=float(np.log(2.5))),
    BoundSpec("TUBA(cap=None)", partial(bounds.TUBA, cap=None), partial(reference.tuba, log_a=0.0, cap=None)),
    BoundSpec("TUBA(learned)", _learned_tuba, _learned_tuba_reference, optimum=None, exponentiates_difference=True,
              with_baseline=bounds.TUBA),
    BoundSpec("JS", bounds.JS, reference.js),
    BoundSpec("NCE", bounds.NCE, reference.nce),
    BoundSpec("NCE(3)", partial(bounds.NCE, 3.0), partial(reference.nce, shift=3.0)),
    BoundSpec("Hellinger", bounds.Hellinger, partial(reference.hellinger, cap=1.0), exceeds=True),
    BoundSpec("Hellinger(cap=None)", partial(bounds.Hellinger, None), partial(reference.hellinger, cap=None),
              exceeds=True),
    BoundSpec("RPC", bounds.RPC, reference.rpc, exceeds=True),
    _other_marginal("ReleasedNWJ", partial(bounds.ReleasedNWJ, clip=2.5),
                    partial(reference.released, clip=2.5, shift=1.0), optimum=1.0, log_normalizer=1.0),
    _other_marginal("ReleasedTUBA", partial(bounds.ReleasedTUBA, clip=2.5),
                    partial(reference.released, clip=2.5, shift=0.0)),
    _other_marginal("ReleasedJS", bounds.ReleasedJS, reference.released_js, gap=-float(np.exp(-1)),
                    log_normalizer=None),
]
# fmt: on


def _log_density_bounds() -> list[BoundSpec]:
    """Bounds of log-densities of the row's variable given the column's; H, I and lautum information of the law."""
    joint = COUNTS / COUNTS.sum()
    rows, columns = joint.sum(axis=1, keepdims=True), joint.sum(axis=0)
    entropy = float(-(rows * np.log(rows)).sum())
    lautum = float((rows * columns * np.log(rows * columns / joint)).sum())
    cross = float((rows * columns * np.log(joint / columns)).sum())  # E_Q of the exact log-density
    ba, linear = partial(reference.ba, entropy=entropy), partial(BoundSpec, averages_exponentials=False)
    surrogate = partial(linear, gap=lautum, log_normalizer=cross, value_shift_invariant=True)
    return [
        linear("BA", partial(bounds.BA, entropy), ba, log_normalizer=-entropy),
        BoundSpec("L1Out", bounds.L1Out, reference.leave_one_out, log_normalizer=-entropy, needs_rows=True,
                  value_shift_invariant=True),
        surrogate("CLUB", bounds.CLUB, reference.club, needs_rows=True),
        surrogate("CLUBSample", bounds.CLUBSample, reference.club_sample),
    ]  # fmt: skip


BOUNDS += _log_density_bounds()


def _declaration(spec: BoundSpec) -> tuple[str, bool, bool, bool]:
    bound = spec.make()
    return bound.marginal_pooling, bound.capped_at_log_n, bound.self_normalized, bound.normalized_by_row


# One bound for each combination of declarations: metrics depend on nothing else of a bound.
BOUND_KINDS = list({_declaration(spec): spec for spec in reversed(BOUNDS)}.values())[::-1]
# One bound for each reduction of scores; pairings depend on nothing else of a bound: a log-mean-exp, clipped, with an
# offset, in rows with and without the joint pair, or of the joint pairs, the mean of a function, and means of pairs and
# rows.
_ONE_EACH = ("DV", "SMILE", "TUBA(learned)", "InfoNCE", "DCL", "Hellinger", "JS", "L1Out", "CLUB", "CLUBSample")
REDUCTIONS = [spec for spec in BOUNDS if spec.name in _ONE_EACH]


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


def by_name(spec: BoundSpec | RegularizerSpec | PairingSpec | CriticSpec | Layout) -> str:
    """For ``pytest.mark.parametrize(ids=...)``."""
    return spec.name


def layouts_of(bound: BoundSpec) -> list[Layout]:
    """The layouts that a bound accepts."""
    return [layout for layout in LAYOUTS if layout.has_rows or not bound.needs_rows]


CASES = [(bound, layout) for bound in BOUNDS for layout in layouts_of(bound)]
CASE_IDS = [f"{bound.name}-{layout.name}" for bound, layout in CASES]
