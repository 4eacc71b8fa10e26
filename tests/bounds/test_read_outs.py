"""The plug-in estimate and the pointwise log-ratio."""

import numpy as np
import pytest
import torch

from lightning_mi import Scores, bounds
from tests.helpers.law import LOG_RATIO, MI, PAIRS, optimum, read, scores_of
from tests.helpers.specs import BOUNDS, BoundSpec, by_name

HOLDING = [spec for spec in BOUNDS if spec.name.split("(")[0] in ("DV", "MINE", "InfoNCE", "NWJ", "TUBA", "JS")]


@pytest.mark.parametrize("spec", HOLDING, ids=by_name)
@pytest.mark.parametrize("shift", [-1.0, 0.0, 2.0])
def test_plug_in_is_the_value_where_the_log_normalizer_is_at_its_target(spec: BoundSpec, shift: float) -> None:
    terms = read(spec, optimum(spec) + shift)
    plug_in = spec.make().plug_in(terms.joint_term, target=terms.log_normalizer.item())
    assert plug_in.item() == pytest.approx(terms.value.item(), abs=1e-12)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_plug_in_at_the_optimal_critic_is_the_value(spec: BoundSpec) -> None:
    terms = read(spec, optimum(spec))
    target = spec.log_normalizer if spec.name == "ReleasedNWJ" else None
    assert spec.make().plug_in(terms.joint_term, target).item() == pytest.approx(terms.value.item(), abs=1e-12)


def test_plug_in_of_a_shifted_critic_is_right_for_the_shifted_target_only() -> None:
    joint_term = read(BOUNDS[0], LOG_RATIO + 3.0).joint_term
    assert bounds.DV().plug_in(joint_term, target=3.0).item() == pytest.approx(MI, abs=1e-12)
    assert bounds.DV().plug_in(joint_term).item() == pytest.approx(MI + 3, abs=1e-12)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_plug_in_takes_a_tensor_of_any_shape(spec: BoundSpec) -> None:
    bound, joint_terms = spec.make(), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    one_by_one = torch.stack([bound.plug_in(term, 0.5) for term in joint_terms.flatten()])
    assert torch.equal(bound.plug_in(joint_terms, 0.5).flatten(), one_by_one)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
@pytest.mark.parametrize("shift", [-50.0, 0.0, 50.0])
def test_exponential_of_log_ratio_averages_to_one_over_marginal_pairs(spec: BoundSpec, shift: float) -> None:
    every = torch.ones(5, 4, dtype=torch.bool)  # each pair is a joint one too, so the log-ratio of each is read
    t, y = torch.randn(5, 4, dtype=torch.float64) + shift, torch.randn(4, 2, dtype=torch.float64)
    log_ratio = spec.make().log_ratio(Scores.from_matrix(t, joint=every, marginal=every, y=y))
    assert log_ratio.shape == (20,)
    assert log_ratio.exp().mean().item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
@pytest.mark.parametrize("shift", [0.0, 1.7])
def test_log_ratio_of_the_optimal_critic_is_the_true_one(spec: BoundSpec, shift: float) -> None:
    observed = spec.make().log_ratio(scores_of(optimum(spec) + shift))
    np.testing.assert_allclose(observed.detach().numpy(), LOG_RATIO[PAIRS[:, 0], PAIRS[:, 1]], atol=1e-12)
