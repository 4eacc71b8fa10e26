"""Regularizers: their distances, weights, targets and errors."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from lightning_mi import BoundTerms, Scores, bounds, regularizers
from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.regularizers import Absolute, Huber, LinearWarmup, Squared, held_target, target_under
from tests.helpers.specs import (
    BOUNDS,
    CASE_IDS,
    CASES,
    LAYOUTS,
    REGULARIZERS,
    BoundSpec,
    Layout,
    RegularizerSpec,
    by_name,
)

DIAGONAL = LAYOUTS[0]
SELF_NORMALIZED = [spec for spec in BOUNDS if spec.make().self_normalized]
FREE = [spec for spec in BOUNDS if not spec.make().self_normalized]


def terms_at(log_normalizer: float) -> BoundTerms:
    """Terms that differ in all but their type, so that a wrong one would show."""
    return BoundTerms(*(torch.tensor(x, dtype=torch.float64) for x in (11.0, 12.0, 13.0, 14.0, log_normalizer)))


@pytest.mark.parametrize("target", [-1.5, 0.0, 0.8])
@pytest.mark.parametrize("log_normalizer", [-3.0, -0.2, 0.0, 0.1, 0.8, 2.5])
@pytest.mark.parametrize("spec", REGULARIZERS, ids=by_name)
def test_penalty_is_weight_times_distance_from_target(
    spec: RegularizerSpec, log_normalizer: float, target: float
) -> None:
    penalty = spec.make(weight=0.3, target=target)(terms_at(log_normalizer), bounds.DV())
    deviation = log_normalizer - target if spec.scale == "log" else math.exp(log_normalizer) - math.exp(target)
    assert penalty.item() == pytest.approx(0.3 * spec.distance(deviation)[0], rel=1e-12, abs=1e-15)
    assert penalty.shape == ()
    assert (penalty == 0) == (log_normalizer == target)


def test_linear_scale_is_the_printed_form_for_nwj() -> None:
    t = torch.tensor(DIAGONAL.draw())
    expected = 0.1 * (np.exp(t.numpy()[DIAGONAL.marginal] - 1).mean() - 1) ** 2
    bound = bounds.NWJ()
    penalty = Squared(weight=0.1, scale="linear")(bound(Scores.from_matrix(t)), bound)
    assert penalty.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=by_name)
@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
def test_zero_weight_is_bit_equal_to_none(spec: BoundSpec, layout: Layout, regularizer: RegularizerSpec) -> None:
    gradients = []
    for weight in (None, 0.0, lambda step: 0.0):
        t = torch.tensor(layout.draw(), dtype=torch.float32, requires_grad=True)
        bound = spec.make().float()
        terms = bound(layout.scores(t, torch.tensor(layout.y).float()))
        loss = -terms.objective
        if weight is not None:
            penalty = regularizer.make(weight=weight)(terms, bound)
            assert penalty == 0
            loss = penalty + loss
        loss.backward()
        gradients.append(t.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


@pytest.mark.filterwarnings("ignore::lightning_mi.exceptions.MINumericalWarning")
@pytest.mark.parametrize("scale", ["log", "linear"])
def test_zero_weight_is_zero_even_where_the_distance_overflows(scale: str) -> None:
    assert Squared(weight=0.0, scale=scale)(terms_at(math.inf), bounds.DV()) == 0


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=by_name)
@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_value_never_contains_the_regularizer(spec: BoundSpec, regularizer: RegularizerSpec) -> None:
    t = torch.tensor(DIAGONAL.draw(), requires_grad=True)
    bound = spec.make()
    terms = bound(DIAGONAL.scores(t))
    before = [term.item() for term in terms]
    penalty = regularizer.make(weight=100.0)(terms, bound)
    assert penalty > 0.01
    assert [term.item() for term in terms] == before
    reading = spec.reference(DIAGONAL.sheet(t.detach().numpy()))
    assert terms.value.item() == pytest.approx(reading.value, abs=1e-12)


def test_warning_names_the_regularizer_and_the_way_out() -> None:
    ell = torch.tensor(100.0, requires_grad=True)
    with pytest.warns(MINumericalWarning, match=r"Squared gave inf for .* of 100 nats: .*scale='log'"):
        Squared(scale="linear")(terms_at(0.0)._replace(log_normalizer=ell), bounds.DV())


def test_warning_points_to_the_call() -> None:
    with pytest.warns(MINumericalWarning) as caught:
        Squared(scale="linear")(terms_at(500.0), bounds.DV())
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("spec", SELF_NORMALIZED, ids=by_name)
def test_target_that_would_move_the_optimum_is_an_error_with_its_reason(spec: BoundSpec) -> None:
    bound = spec.make()
    terms = bound(DIAGONAL.scores(torch.tensor(DIAGONAL.draw())))
    regularizer = Squared(target=0.5)
    for attempt in (partial(regularizer, terms, bound), partial(regularizer.target_of, bound)):
        with pytest.raises(ValueError, match=f"Got target=0.5 for {type(bound).__name__}.*would move the optimum"):
            attempt()


@pytest.mark.parametrize("spec", SELF_NORMALIZED, ids=by_name)
def test_natural_target_may_be_written_out(spec: BoundSpec) -> None:
    bound = spec.make()
    terms = bound(DIAGONAL.scores(torch.tensor(DIAGONAL.draw())))
    assert Squared(target=0.0)(terms, bound) == Squared()(terms, bound)


@pytest.mark.parametrize("spec", FREE, ids=by_name)
def test_other_bounds_admit_any_target(spec: BoundSpec) -> None:
    bound = spec.make()
    assert Squared(target=-2.5).target_of(bound) == -2.5
    assert Squared().target_of(bound) == bound.natural_target == 0


def test_a_target_is_held_by_a_regularizer_or_by_the_bound_itself() -> None:
    free, own = bounds.DV(), bounds.NWJ()
    assert (held_target(free, None), held_target(own, None)) == (None, 0.0)
    assert (held_target(free, Squared()), held_target(free, Squared(target=2.0))) == (0.0, 2.0)
    assert held_target(own, Squared()) == 0.0
    assert (target_under(free, None), target_under(free, Squared(target=2.0))) == (0.0, 2.0)
    for read in (held_target, target_under):
        with pytest.raises(ValueError, match=r"Got target=2\.0 for NWJ"):
            read(own, Squared(target=2.0))


@pytest.mark.parametrize(("make", "distance"), [(Squared, 9.0), (Absolute, 3.0), (Huber, 2.5)])
def test_weight_and_delta_are_one_by_default(make: type, distance: float) -> None:
    assert make()(terms_at(3.0), bounds.DV()) == distance


@pytest.mark.parametrize("make", [Squared, Absolute, Huber, partial(LinearWarmup, steps=5)])
@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_weight_that_is_negative_or_not_finite_is_an_error(make: type, weight: float) -> None:
    with pytest.raises(ValueError, match=f"Got weight={weight}: lambda is at least 0 and finite"):
        make(weight=weight)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_scheduled_weight_that_is_negative_or_not_finite_is_an_error(weight: float) -> None:
    regularizer = Squared(weight=lambda step: weight)
    with pytest.raises(ValueError, match=f"Got weight={weight}"):
        regularizer(terms_at(1.0), bounds.DV())


@pytest.mark.parametrize("make", [Squared, Absolute, Huber])
def test_unknown_scale_is_an_error(make: type) -> None:
    with pytest.raises(ValueError, match=r"Got scale='exp': .*'log' or the 'linear' scale"):
        make(scale="exp")


@pytest.mark.parametrize("target", [math.nan, math.inf, -math.inf])
def test_target_that_is_not_finite_is_an_error(target: float) -> None:
    with pytest.raises(ValueError, match=f"Got target={target}: .*finite number"):
        Squared(target=target)


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf])
def test_huber_refuses_a_delta_that_is_not_positive(delta: float) -> None:
    with pytest.raises(ValueError, match=f"Got delta={delta}: .*positive distance"):
        Huber(delta=delta)


def test_warmup_rises_linearly_and_stays() -> None:
    warmup = LinearWarmup(weight=0.4, steps=8)
    assert [warmup(step) for step in (0, 1, 2, 4, 8, 9, 10**6)] == pytest.approx([0, 0.05, 0.1, 0.2, 0.4, 0.4, 0.4])
    assert [LinearWarmup(weight=0.4, steps=1)(step) for step in (0, 1)] == [0, 0.4]


@pytest.mark.parametrize("steps", [0, -3])
def test_warmup_without_steps_is_an_error(steps: int) -> None:
    with pytest.raises(ValueError, match=f"Got steps={steps}: it must be at least 1"):
        LinearWarmup(weight=0.1, steps=steps)


def test_scheduled_weight_is_read_at_the_training_step() -> None:
    regularizer = Squared(weight=LinearWarmup(weight=0.4, steps=8))
    assert regularizer(terms_at(3.0), bounds.DV()) == 0, "before anything sets the step it is 0"
    penalties = []
    for regularizer.step in (0, 2, 100):
        penalties.append(regularizer(terms_at(3.0), bounds.DV()).item())
    assert penalties == pytest.approx([0.0, 0.9, 3.6])


@pytest.mark.parametrize("delta", [0.5, 3.0])
def test_pull_of_huber_is_at_most_weight_times_delta(delta: float) -> None:
    ell = torch.tensor(100.0, requires_grad=True)
    Huber(weight=0.2, delta=delta)(terms_at(0.0)._replace(log_normalizer=ell), bounds.DV()).backward()
    assert ell.grad.item() == pytest.approx(0.2 * delta)


def test_abstract_regularizer_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        regularizers.AbstractRegularizer()


def test_a_factor_multiplies_the_weight_scheduled_or_not() -> None:
    for weight in (0.5, LinearWarmup(weight=1.0, steps=4)):
        regularizer = Squared(weight=weight)
        regularizer.step, regularizer.factor = 2, 3.0
        assert regularizer.current_weight() == 1.5
        assert regularizer(terms_at(2.0), bounds.DV()).item() == 1.5 * 2.0**2
