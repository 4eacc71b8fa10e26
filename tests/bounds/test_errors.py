"""What a bound refuses, and how it says so."""

import pytest
import torch

from lightning_mi import Scores, bounds
from lightning_mi.exceptions import MINumericalWarning


def test_rows_are_asked_for_where_there_are_none() -> None:
    scores = Scores.from_samples(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"Got two lists of pairs.*AllPairs"):
        bounds.InfoNCE()(scores)
    with pytest.raises(ValueError, match=r"Got two lists of pairs.*AllPairs"):
        bounds.InfoNCE().log_ratio(scores)


@pytest.mark.parametrize("tau", [0.0, -5.0, float("inf"), float("nan")])
def test_smile_refuses_a_tau_that_clips_nothing_or_everything(tau: float) -> None:
    with pytest.raises(ValueError, match=f"Got tau={tau}: .*positive number"):
        bounds.SMILE(tau)


def test_smile_refuses_an_unknown_objective() -> None:
    with pytest.raises(ValueError, match=r"Got objective='gan': .*'value' or the 'js'"):
        bounds.SMILE(objective="gan")


@pytest.mark.parametrize("make", [bounds.ReleasedNWJ, bounds.ReleasedTUBA])
@pytest.mark.parametrize("clip", [0.0, -5.0, float("inf"), float("nan")])
def test_released_bounds_refuse_a_clip_that_clips_nothing_or_everything(make: type, clip: float) -> None:
    with pytest.raises(ValueError, match=f"Got clip={clip}: .*positive number"):
        make(clip)


@pytest.mark.parametrize("make", [bounds.ReleasedNWJ, bounds.ReleasedTUBA])
def test_released_bounds_clip_at_ten_by_default_and_at_any_positive_number(make: type) -> None:
    scores = Scores.from_matrix(torch.full((3, 3), 50.0))
    assert make()(scores).joint_term == 11 - make.shift
    assert make(0.5)(scores).joint_term == 1.5 - make.shift


def test_smile_clips_at_any_positive_number() -> None:
    assert bounds.SMILE(0.5)(Scores.from_matrix(torch.full((3, 3), 50.0))).marginal_term == 0.5


def test_warning_names_the_bound_and_the_terms_that_overflowed() -> None:
    t = torch.full((4, 4), 1e4, requires_grad=True)
    with pytest.warns(MINumericalWarning, match=r"NWJ read value = -inf, marginal_term = inf: .*`cap`") as caught:
        bounds.NWJ()(Scores.from_matrix(t))
    assert len(caught) == 1, "and nothing else is warned of"


def test_warning_points_to_the_call() -> None:
    with pytest.warns(MINumericalWarning) as caught:
        bounds.DV()(Scores.from_matrix(torch.full((4, 4), torch.nan)))
    assert [warning.filename for warning in caught] == [__file__]


def test_abstract_bound_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        bounds.AbstractBound()
