"""`estimate` on small laws with known MI, reproducibility, and wrong options."""

import json
import math

import numpy as np
import pytest
import torch

from lightning_mi import critics, estimate, regularizers
from lightning_mi.estimation.readout import extrapolate
from lightning_mi.estimation.result import LearningCurvePoint
from lightning_mi.exceptions import EstimateInputError

TRUTH = -0.5 * math.log(1 - 0.8**2)


def gaussian(n=600, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    return x, np.column_stack([0.8 * x[:, 0] + 0.6 * rng.normal(size=n), rng.normal(size=n)])


@pytest.fixture(scope="module")
def result():
    return estimate(*gaussian(), budget="quick", permutations=99)


def test_gaussian_is_estimated_within_its_error(result):
    assert result.lower < TRUTH
    assert result.mi == pytest.approx(TRUTH, abs=0.1)
    assert result.p_value == 0.01
    assert result.kinds == ("continuous", "continuous")
    assert result.pointwise.shape == (600,)


def test_same_seed_gives_the_same_result(short_plans):
    state = torch.get_rng_state()
    first, repeated, other = (estimate(*gaussian(200), budget="quick", permutations=19, seed=s) for s in (0, 0, 1))
    assert repeated.mi == first.mi != other.mi
    np.testing.assert_array_equal(repeated.pointwise, first.pointwise)
    assert torch.equal(torch.get_rng_state(), state)  # the user's random numbers do not change


def test_independent_arrays_have_a_limit_below_zero():
    x, _ = gaussian()
    independent = estimate(x, np.random.default_rng(9).normal(size=(600, 1)), budget="quick", permutations=99)
    assert independent.lower <= 0
    assert independent.p_value > 0.01
    assert abs(independent.mi) < 0.02


def test_labels_are_detected_and_their_mi_is_found():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, 900)
    y = np.where(rng.random(900) < 0.8, x, rng.integers(0, 3, 900))  # 0.8667 right
    truth = math.log(3) + 13 / 15 * math.log(13 / 15) + 2 / 15 * math.log(1 / 15)
    labels = estimate(x, y, budget="quick", permutations=99)
    assert labels.kinds == ("discrete", "discrete")
    assert labels.mi == pytest.approx(truth, abs=0.08)


def test_bits_are_nats_over_log_2(short_plans):
    nats, bits = (estimate(*gaussian(200), budget="quick", permutations=19, units=unit) for unit in ("nats", "bits"))
    assert bits.mi * math.log(2) == pytest.approx(nats.mi, rel=1e-9)
    assert bits.learning_curve[-1].mi == pytest.approx(bits.mi)


def test_text_json_html_and_figure(result):
    lines = str(result).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"MI = {result.mi:.3f} nats")
    assert json.loads(result.to_json())["lower"] == result.lower
    assert f"{result.mi:.3f} nats" in result._repr_html_()
    assert len(result.plot().axes) == 3


def test_plug_in_is_near_the_value_and_needs_a_regularizer(result, short_plans):
    assert result.cross_checks["plug_in"] == pytest.approx(result.mi, abs=0.1)
    for regularizer in (None, regularizers.Squared(weight=0.1, target=1.0), regularizers.Squared(weight=0.0)):
        other = estimate(*gaussian(100), budget="quick", folds=2, permutations=19, regularizer=regularizer)
        assert "plug_in" not in other.cross_checks


def test_parts_can_be_replaced():
    made = []

    def critic(x_dim, y_dim):
        made.append((x_dim, y_dim))
        return critics.BilinearCritic(x_dim, y_dim)

    estimate(*gaussian(200), budget="quick", critic=critic, regularizer=None, folds=2, permutations=19)
    assert made == [(7, 7)] * 2


def test_learning_curve_is_extrapolated_only_if_it_rises():
    def curve(*values):
        return [LearningCurvePoint(100 * 4**i, value, 0.01) for i, value in enumerate(values)]

    assert extrapolate(curve(1.0)) is None
    assert extrapolate(curve(0.9, 0.95)) == pytest.approx(1.0)
    assert extrapolate(curve(0.95, 0.9)) == 0.9
    assert extrapolate(curve(0.0, 0.015)) == 0.015  # not significant


WRONG = {
    "lengths": (lambda: estimate(np.zeros(60) + np.arange(60), np.arange(70.0)), EstimateInputError, "60 samples of x"),
    "budget": (lambda: estimate(*gaussian(), budget="fast"), ValueError, "Got budget='fast'"),
    "units": (lambda: estimate(*gaussian(), units="shannon"), ValueError, "Got units='shannon'"),
    "folds": (lambda: estimate(*gaussian(), folds=1), ValueError, "Got folds=1"),
    "confidence": (lambda: estimate(*gaussian(), confidence=95), ValueError, "Got confidence=95"),
    "groups": (lambda: estimate(*gaussian(), groups=[1, 2]), EstimateInputError, r"Got groups of shape \(2,\)"),
    "small folds": (lambda: estimate(*gaussian(60), folds=30), EstimateInputError, "Got a fold of 2 samples"),
    "critic": (
        lambda: estimate(*gaussian(), critic=critics.SeparableCritic(5, 5)),
        TypeError,
        "a function that creates",
    ),
    "bound": (lambda: estimate(*gaussian(), bound="DV"), TypeError, "Got bound='DV'"),
    "groups of objects": (
        lambda: estimate(*gaussian(), groups=[None, *range(599)]),
        EstimateInputError,
        "cannot be sorted",
    ),
    "few blocks": (lambda: estimate(*gaussian(), blocks=400, folds=2), EstimateInputError, "Got 2 groups or blocks"),
    "list of labels": (lambda: estimate(*gaussian(), discrete=["x"]), TypeError, "pass a mapping of names"),
    "groups and blocks": (
        lambda: estimate(*gaussian(), groups=np.arange(600), blocks=3),
        EstimateInputError,
        "Got groups and blocks=3",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_options_raise(wrong):
    call, error, message = WRONG[wrong]
    with pytest.raises(error, match=message):
        call()
