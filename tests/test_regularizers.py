"""Regularizers: their distances, weights, targets and errors."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from lightning_mi import BoundTerms, Scores, bounds
from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.regularizers import (
    Absolute,
    AbstractRegularizer,
    Huber,
    LinearWarmup,
    Squared,
    check_target,
    log_normalizer_target,
)
from tests.helpers.layouts import LAYOUTS
from tests.helpers.specs import BOUNDS, REGULARIZERS, BoundSpec, RegularizerSpec, by_name

DIAGONAL = LAYOUTS[0]


def terms_at(log_normalizer: float) -> BoundTerms:
    """Five different terms, so that reading a wrong one would show."""
    return BoundTerms(*(torch.tensor(x, dtype=torch.float64) for x in (11.0, 12.0, 13.0, 14.0, log_normalizer)))


@pytest.mark.parametrize("spec", REGULARIZERS, ids=by_name)
def test_penalty_is_weight_times_distance_from_target(spec: RegularizerSpec) -> None:
    for log_normalizer in (-3.0, -0.2, 0.0, 0.1, 0.8, 2.5):
        for target in (-1.5, 0.0, 0.8):
            penalty = spec.make(weight=0.3, target=target)(terms_at(log_normalizer))
            deviation = log_normalizer - target if spec.scale == "log" else math.exp(log_normalizer) - math.exp(target)
            assert penalty.item() == pytest.approx(0.3 * spec.distance(deviation)[0], rel=1e-12, abs=1e-15)
            assert penalty.shape == ()
            assert (penalty == 0) == (log_normalizer == target)


def test_linear_scale_is_the_printed_form_for_nwj() -> None:
    t = torch.tensor(DIAGONAL.draw())
    expected = 0.1 * (np.exp(t.numpy()[DIAGONAL.marginal] - 1).mean() - 1) ** 2
    penalty = Squared(weight=0.1, scale="linear")(bounds.NWJ()(Scores.from_matrix(t)))
    assert penalty.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_weight_zero_gives_bit_equal_gradients(spec: BoundSpec) -> None:
    gradients = []
    for weight in (None, 0.0, lambda step: 0.0):
        t = torch.tensor(DIAGONAL.draw(), dtype=torch.float32, requires_grad=True)
        terms = spec.make().float()(DIAGONAL.scores(t, torch.tensor(DIAGONAL.y).float()))
        loss = -terms.objective
        if weight is not None:
            loss = Squared(weight)(terms) + loss
        loss.backward()
        gradients.append(t.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


@pytest.mark.parametrize("spec", REGULARIZERS, ids=by_name)
def test_weight_zero_gives_zero_for_an_infinite_log_normalizer(spec: RegularizerSpec) -> None:
    penalty = spec.make(weight=0.0)(terms_at(math.inf))
    assert penalty == 0
    assert not penalty.requires_grad


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_value_never_contains_the_regularizer(spec: BoundSpec) -> None:
    t = torch.tensor(DIAGONAL.draw(), requires_grad=True)
    terms = spec.make()(DIAGONAL.scores(t))
    before = [term.item() for term in terms]
    assert Squared(weight=100.0)(terms) > 0.01
    assert [term.item() for term in terms] == before
    reference = spec.reference(DIAGONAL.sheet(t.detach().numpy()))
    assert terms.value.item() == pytest.approx(reference.value, abs=1e-12)


@pytest.mark.parametrize(
    ("regularizer", "remedy"),
    [
        (Squared(scale="linear"), "scale='log'"),
        (Squared(weight=1e300), "Use Huber or Absolute"),
        (Huber(weight=1e308), "Lower its weight"),
        (Absolute(weight=1e308), "Lower its weight"),
    ],
    ids=["linear", "squared", "huber", "absolute"],
)
def test_overflow_warning_gives_value_remedy_and_caller(regularizer: AbstractRegularizer, remedy: str) -> None:
    with pytest.warns(MINumericalWarning, match=f"gave inf for .* of 1e\\+06 nats: .*{remedy}") as caught:
        regularizer(terms_at(1e6))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_self_normalized_bounds_admit_target_zero_only(spec: BoundSpec) -> None:
    bound = spec.make()
    check_target(bound, None)
    check_target(bound, Squared(target=0.0))
    if not bound.self_normalized:
        check_target(bound, Squared(target=-2.5))
        return
    for check in (check_target, log_normalizer_target):
        with pytest.raises(ValueError, match=f"Got target=-2.5 for {type(bound).__name__}.*would move the optimum"):
            check(bound, Squared(target=-2.5))


def test_log_normalizer_target_of_free_and_self_normalized_bounds() -> None:
    free, self_normalized = bounds.DV(), bounds.NWJ()
    assert log_normalizer_target(free, None) is None
    assert log_normalizer_target(free, Squared()) == 0.0
    assert log_normalizer_target(free, Squared(target=2.0)) == 2.0
    assert log_normalizer_target(self_normalized, None) == log_normalizer_target(self_normalized, Squared()) == 0.0


@pytest.mark.parametrize(("make", "distance"), [(Squared, 9.0), (Absolute, 3.0), (Huber, 2.5)])
def test_weight_and_delta_are_one_by_default(make: type, distance: float) -> None:
    assert make()(terms_at(3.0)) == distance


@pytest.mark.parametrize(("weight", "message"), [(-0.1, "at least 0"), (math.nan, "finite"), (math.inf, "finite")])
def test_negative_or_non_finite_weight_is_an_error(weight: float, message: str) -> None:
    for make in (Squared, Absolute, Huber, partial(LinearWarmup, steps=5)):
        with pytest.raises(ValueError, match=f"Got weight={weight}: .*{message}"):
            make(weight=weight)
    with pytest.raises(ValueError, match=f"Got weight={weight}: .*{message}"):
        Squared(weight=lambda step: weight)(terms_at(1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "exp"}, "Got scale='exp': it is one of 'log', 'linear'"),
        ({"target": math.nan}, "Got target=nan: .*finite"),
        ({"target": -math.inf}, "Got target=-inf: .*finite"),
        ({"delta": 0.0}, "Got delta=0.0: .*positive"),
        ({"delta": math.inf}, "Got delta=inf: .*positive"),
    ],
    ids=str,
)
def test_invalid_option_is_an_error(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Huber(**arguments)


def test_terms_of_another_type_are_an_error() -> None:
    with pytest.raises(TypeError, match=r"Got terms .*BoundTerms.*bound\(scores\)"):
        Squared()(torch.zeros(()))


def test_warmup_rises_linearly_then_stays() -> None:
    warmup = LinearWarmup(weight=0.4, steps=8)
    assert [warmup(step) for step in (0, 1, 2, 4, 8, 9, 10**6)] == pytest.approx([0, 0.05, 0.1, 0.2, 0.4, 0.4, 0.4])
    assert [LinearWarmup(weight=0.4, steps=1)(step) for step in (0, 1)] == [0, 0.4]
    with pytest.raises(ValueError, match="Got steps=0: it must be at least 1"):
        LinearWarmup(weight=0.1, steps=0)


def test_scheduled_weight_is_read_at_the_training_step() -> None:
    regularizer = Squared(weight=LinearWarmup(weight=0.4, steps=8))
    assert regularizer(terms_at(3.0)) == 0, "the step is 0 before a module sets it"
    penalties = []
    for regularizer.step in (0, 2, 100):
        penalties.append(regularizer(terms_at(3.0)).item())
    assert penalties == pytest.approx([0.0, 0.9, 3.6])


@pytest.mark.parametrize("delta", [0.5, 3.0])
def test_gradient_of_huber_is_at_most_weight_times_delta(delta: float) -> None:
    ell = torch.tensor(100.0, requires_grad=True)
    Huber(weight=0.2, delta=delta)(terms_at(0.0)._replace(log_normalizer=ell)).backward()
    assert ell.grad.item() == pytest.approx(0.2 * delta)


def test_factor_multiplies_the_weight_scheduled_or_not() -> None:
    for weight in (0.5, LinearWarmup(weight=1.0, steps=4)):
        regularizer = Squared(weight=weight)
        regularizer.step, regularizer.factor = 2, 3.0
        assert regularizer.current_weight() == 1.5
        assert regularizer(terms_at(2.0)).item() == 1.5 * 2.0**2


def test_factor_is_in_the_state_dict_and_optional() -> None:
    regularizer, other = Squared(), Squared()
    regularizer.factor = 3.0
    other.load_state_dict(regularizer.state_dict())
    assert other.factor == 3.0
    other.load_state_dict({})
    assert other.factor == 1.0


@pytest.mark.parametrize("state", [torch.tensor(math.nan), torch.tensor(-1.0), torch.ones(2), "3"])
def test_damaged_factor_raises(state: object) -> None:
    with pytest.raises(RuntimeError, match=r"loading state_dict for Squared: Got .* as the factor"):
        Squared().load_state_dict({"_extra_state": state})
