"""In a training step the guard checks for bound and regularizer, and issues their warnings."""

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
def test_an_infinite_value_with_finite_gradients_is_a_warning(accumulated):
    """NWJ's value overflows at scores of 200 where its capped objective and all gradients do not."""
    batches = draw(8, 8, 8, 8)
    for view in batches.batches[BAD]:
        view.mul_(60)
    module = make(bounds.NWJ(), critic=critics.CalibratedCritic(critics.InnerProductCritic()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = fit(module, batches, accumulate_grad_batches=accumulated)
    assert [str(warning.message) for warning in caught if "NWJ gave value = -inf" in str(warning.message)] != []
    assert fitted.global_step == 4 // accumulated


def test_an_infinite_penalty_warns_before_the_error():
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


def test_a_training_step_defers_the_checks(monkeypatch):
    checks = []
    monkeypatch.setattr(bounds.DV, "warn_unless_finite", lambda *_, **__: checks.append("bound"))
    module = make(regularizer=regularizers.Squared())
    fit(module, draw(8, 8, 8))
    assert checks == []
    module.step(draw(8).batches[0])
    assert checks == ["bound"]
    fit(make(on_non_finite="off"), draw(8, 8, 8))
    assert checks == ["bound"] * 4
