"""In a training step bound and regularizer leave it to the guard to see whether they are finite; it says the same."""

import warnings

import pytest

from lightning_mi import MINumericalWarning, NonFiniteStepError, bounds, critics, regularizers
from tests.helpers.small_module import draw, fit, make

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.* gave .* = (nan|-?inf):lightning_mi.MINumericalWarning"),
]
BAD = 2  # the step


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_value_that_is_not_finite_warns_where_gradients_are_and_training_goes_on(accumulated):
    """NWJ's value overflows at scores of 200 where its capped objective and all gradients do not."""
    batches = draw(8, 8, 8, 8)
    for view in batches.batches[BAD]:
        view.mul_(60)
    module = make(bounds.NWJ(), critic=critics.CalibratedCritic(critics.InnerProductCritic()))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fitted = fit(module, batches, accumulate_grad_batches=accumulated)
    assert [str(one.message) for one in said if "NWJ gave value = -inf" in str(one.message)] != []
    assert fitted.global_step == 4 // accumulated


def test_a_penalty_beyond_floating_point_numbers_says_so_before_the_step_is_refused():
    module = make(
        regularizer=regularizers.Squared(scale="linear"), critic=critics.CalibratedCritic(critics.InnerProductCritic())
    )
    batches = draw(8, 8, 8, 8)
    for view in batches.batches[BAD]:
        view.mul_(60)
    with (
        pytest.warns(MINumericalWarning, match="Squared gave inf"),
        pytest.raises(NonFiniteStepError, match="loss is inf"),
    ):
        fit(module, batches)


def test_in_a_training_step_bound_and_regularizer_leave_the_look_to_the_guard(monkeypatch):
    looks = []
    monkeypatch.setattr(bounds.DV, "warn_unless_finite", lambda *_, **__: looks.append("bound"))
    module = make(regularizer=regularizers.Squared())
    fit(module, draw(8, 8, 8))
    assert looks == []
    module.step(draw(8).batches[0])
    assert looks == ["bound"]
    fit(make(on_non_finite="off"), draw(8, 8, 8))
    assert looks == ["bound"] * 4
