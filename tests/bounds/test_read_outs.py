"""The plug-in estimate and the pointwise log-ratio."""

import numpy as np
import pytest
import torch

from lightning_mi import Scores, bounds
from tests.helpers.law import LOG_RATIO, MI, PAIRS, optimum, read, scores_of
from tests.helpers.specs import BOUNDS, BoundSpec, by_name


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_plug_in_at_the_observed_log_normalizer_is_the_value(spec: BoundSpec) -> None:
    """For exactly the bounds whose marginal term is a function of the log-normalizer."""
    differences = []
    for shift in (-1.0, 0.0, 2.0):
        terms = read(spec, optimum(spec) + shift)
        plug_in = spec.make().plug_in(terms.joint_term, target=terms.log_normalizer.item())
        differences.append(abs(plug_in - terms.value).item())
    assert (max(differences) < 1e-12) == spec.marginal_of_log_normalizer


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_plug_in_at_the_optimal_critic_is_the_value(spec: BoundSpec) -> None:
    terms = read(spec, optimum(spec))
    target = spec.log_normalizer or 0.0
    joint_terms = terms.joint_term.repeat(2, 3)  # of any shape
    expected = terms.value.repeat(2, 3)
    torch.testing.assert_close(spec.make().plug_in(joint_terms, target), expected, rtol=0, atol=1e-12)


def test_plug_in_of_a_shifted_critic_needs_the_shifted_target() -> None:
    joint_term = read(BOUNDS[0], LOG_RATIO + 3.0).joint_term
    assert bounds.DV().plug_in(joint_term, target=3.0).item() == pytest.approx(MI, abs=1e-12)
    assert bounds.DV().plug_in(joint_term).item() == pytest.approx(MI + 3, abs=1e-12)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_exponential_of_log_ratio_has_mean_one(spec: BoundSpec) -> None:
    every = torch.ones(5, 4, dtype=torch.bool)  # each marginal pair is a joint pair too: the log-ratio covers all
    for shift in (-50.0, 0.0, 50.0):
        t, y = torch.randn(5, 4, dtype=torch.float64) + shift, torch.randn(4, 2, dtype=torch.float64)
        log_ratio = spec.make().log_ratio(Scores.from_matrix(t, joint=every, marginal=every, y=y))
        assert log_ratio.shape == (20,)
        assert log_ratio.exp().mean().item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_log_ratio_of_the_optimal_critic_is_exact(spec: BoundSpec) -> None:
    for shift in (0.0, 1.7):
        observed = spec.make().log_ratio(scores_of(optimum(spec) + shift))
        np.testing.assert_allclose(observed.detach().numpy(), LOG_RATIO[PAIRS[:, 0], PAIRS[:, 1]], atol=1e-12)
