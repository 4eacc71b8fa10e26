"""docs/theory.md: identities and numbers hold in the code."""

import numpy as np
import pytest
import torch
from scipy import integrate

from lightning_mi import Scores, bounds, critics, pairs
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("shift", [-2.0, 0.0, 1.5])
@pytest.mark.parametrize("bound", [bounds.NWJ(), bounds.TUBA(2.5), bounds.JS()], ids=lambda b: type(b).__name__)
def test_self_normalized_bound_is_dv_minus_log_normalizer_cost(bound, shift):
    scores = Scores.from_matrix(torch.randn(6, 6, dtype=torch.float64) + shift)
    dv, terms = bounds.DV()(scores), bound(scores)
    ell = terms.log_normalizer
    torch.testing.assert_close(terms.value, dv.value - (ell.exp() - 1 - ell))
    torch.testing.assert_close(bound.plug_in(terms.joint_term) - terms.value, ell.exp() - 1)
    if not isinstance(bound, bounds.JS):
        g = torch.where(ell > bound.cap, np.exp(bound.cap) * (1 + ell - bound.cap), ell.exp())
        torch.testing.assert_close(terms.objective, dv.value - (g - 1 - ell))


@pytest.mark.parametrize("bound", [bounds.DV(), bounds.MINE(), bounds.InfoNCE()], ids=lambda b: type(b).__name__)
def test_plug_in_differs_by_the_log_normalizer_deviation(bound):
    terms = bound(Scores.from_matrix(torch.randn(6, 6, dtype=torch.float64)))
    excess = bound.plug_in(terms.joint_term, 0.7) - terms.value
    torch.testing.assert_close(excess, terms.log_normalizer - 0.7)


def test_mine_pulls_a_constant_to_its_moving_average():
    matrix, constant = torch.randn(6, 6, dtype=torch.float64), torch.zeros((), dtype=torch.float64, requires_grad=True)
    bound = bounds.MINE(ema_rate=0.1).double()
    bound(Scores.from_matrix(matrix - 3))
    bound(Scores.from_matrix(matrix + constant)).objective.backward()
    level = bounds.DV()(Scores.from_matrix(matrix)).marginal_term
    assert constant.grad.item() == pytest.approx(1 - (level - bound.log_average).exp().item())
    assert constant.grad.item() < -0.5


def test_second_moment_of_the_gaussian_ratio():
    rho = 0.6

    def integrand(y, x):
        joint = np.exp(-(x * x + y * y - 2 * rho * x * y) / (2 * (1 - rho**2))) / (2 * np.pi * np.sqrt(1 - rho**2))
        return joint**2 / (np.exp(-(x * x + y * y) / 2) / (2 * np.pi))

    mi = -0.5 * np.log(1 - rho**2)
    assert integrate.dblquad(integrand, -10, 10, -10, 10)[0] == pytest.approx(np.exp(2 * mi), rel=1e-6)
    assert f"{np.log(64 * 63) / 2:.1f} nats for a batch of 64" in PAGE
    assert f"{np.log(400 * 64 * 63) / 2:.1f} nats for 400" in PAGE


@pytest.mark.parametrize(
    ("pairing", "views", "candidates"),
    [
        (pairs.AllPairs(), 2, 6),
        (pairs.TwoViews(), 2, 11),
        (pairs.SameLabel(), 1, 5),
    ],
    ids=["AllPairs", "TwoViews", "SameLabel"],
)
def test_ceiling_counts_the_candidates_that_the_page_names(pairing, views, candidates):
    labels = [torch.tensor([0, 0, 1, 1, 2, 2])] if pairing.takes_labels else []
    z = 9 * torch.eye(3)[torch.tensor([0, 0, 1, 1, 2, 2])]
    assert pairing(critics.InnerProductCritic(), *[z] * views, *labels).num_candidates == candidates


def test_same_label_pairs_reach_the_ceiling_of_the_page():
    counts = np.array([600, 300, 100])
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    scores = pairs.SameLabel()(critics.InnerProductCritic(), 9 * torch.eye(3)[labels], labels)
    p = counts / counts.sum()
    ceiling, entropy = -np.log((p**2).sum()), -(p * np.log(p)).sum()
    assert bounds.DV()(scores).value.item() == pytest.approx(ceiling, abs=0.01)
    assert ceiling < entropy - 0.1
