"""Errors and warnings of bounds: the received value, its meaning and the remedy."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch

from lightning_mi import Scores, bounds
from lightning_mi.exceptions import MINumericalWarning

POSITIVE: dict[str, list[Callable[..., bounds.AbstractBound]]] = {
    "tau": [bounds.SMILE],
    "clip": [bounds.ReleasedNWJ, bounds.ReleasedTUBA],
    "baseline": [bounds.TUBA],
}


def test_infonce_without_rows_is_an_error() -> None:
    scores = Scores.from_samples(torch.zeros(3), torch.zeros(3))
    for method in (bounds.InfoNCE(), bounds.InfoNCE().log_ratio):
        with pytest.raises(ValueError, match=r"Got two lists of pairs.*AllPairs"):
            method(scores)


@pytest.mark.parametrize("name", ["is_lower_bound", "self_normalized", "marginal_pooling"])
def test_bound_without_a_declaration_is_an_error(name: str) -> None:
    declared = {"is_lower_bound": True, "self_normalized": True, "marginal_pooling": "mean"}
    del declared[name]
    with pytest.raises(TypeError, match=f"Got bound New without {name}: .*Set it as a class attribute"):
        type("New", (bounds.AbstractBound,), declared)
    type("AbstractNew", (bounds.AbstractBound,), declared)


@pytest.mark.parametrize("value", [0.0, -5.0, math.inf, math.nan])
@pytest.mark.parametrize("name", POSITIVE)
def test_positive_option_out_of_range_is_an_error(name: str, value: float) -> None:
    for make in POSITIVE[name]:
        with pytest.raises(ValueError, match=f"Got {name}={value}: .*positive finite number"):
            make(value)


@pytest.mark.parametrize(("cap", "message"), [(-0.1, "at least 0"), (math.inf, "or None"), (math.nan, "or None")])
def test_cap_out_of_range_is_an_error(cap: float, message: str) -> None:
    for make in (bounds.NWJ, partial(bounds.TUBA, 1.0), bounds.Hellinger):
        with pytest.raises(ValueError, match=f"Got cap={cap}: .*{message}"):
            make(cap=cap)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, math.nan])
def test_ema_rate_out_of_range_is_an_error(rate: float) -> None:
    with pytest.raises(ValueError, match=rf"Got ema_rate={rate}: .*\(0, 1\]"):
        bounds.MINE(rate)


def test_unknown_objective_of_smile_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Got objective='gan': it is one of 'value', 'js'"):
        bounds.SMILE(objective="gan")


def test_clips_are_ten_and_five_by_default_or_as_given() -> None:
    scores = Scores.from_matrix(torch.full((3, 3), 50.0))
    for make in (bounds.ReleasedNWJ, bounds.ReleasedTUBA):
        assert make()(scores).joint_term == 11 - make.shift
        assert make(0.5)(scores).joint_term == 1.5 - make.shift
    assert bounds.SMILE()(scores).marginal_term == 5
    assert bounds.SMILE(0.5)(scores).marginal_term == 0.5


def test_warning_names_the_bound_and_the_overflowed_terms() -> None:
    t = torch.full((4, 4), 1e4, requires_grad=True)
    with pytest.warns(MINumericalWarning, match=r"NWJ gave value = -inf, marginal_term = inf: .*`cap`") as caught:
        bounds.NWJ()(Scores.from_matrix(t))
    assert [warning.filename for warning in caught] == [__file__]


def test_scores_of_another_type_are_an_error() -> None:
    with pytest.raises(TypeError, match=r"Got scores of type Tensor.*Scores\.from_matrix"):
        bounds.DV()(torch.eye(4))


def test_batch_without_marginal_pairs_gives_nan_without_a_warning() -> None:
    scores = Scores.from_samples(torch.zeros(1), torch.zeros(0), allow_no_marginal=True)
    terms = bounds.DV()(scores)
    assert terms.value.isnan()
    assert terms.objective.isnan()
