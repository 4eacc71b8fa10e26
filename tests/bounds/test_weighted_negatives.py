"""InfoNCE with hard-negative and debiased weights: the objective by a loop, the value without weights."""

import math

import numpy as np
import pytest
import torch

from lightning_mi import Scores, bounds, critics, pairs
from lightning_mi.scores.tiled import TiledMarginals
from tests.helpers import ddp_exactness as exactness
from tests.helpers import reference
from tests.helpers.row_loops import weighted_row
from tests.helpers.specs import BoundSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later

CASES = [(1.5, 0.0, None), (0.0, 0.2, -1.5), (0.7, 0.1, -1.0)]
weights = pytest.mark.parametrize(("hardness", "debias", "low"), CASES)


def bound_of(hardness, debias, low):
    return bounds.InfoNCE(hardness=hardness, debias=debias, lowest_score=low)


@weights
def test_objective_and_gradient_equal_a_loop(hardness, debias, low):
    drawn = np.random.default_rng(0).normal(size=(7, 7)) + np.diag([0, 1, 2, 3, 4, 5, 6])
    t = torch.tensor(drawn, requires_grad=True)
    terms = bound_of(hardness, debias, low)(Scores.from_matrix(t))
    (gradient,) = torch.autograd.grad(terms.objective, t)
    rows = [weighted_row(row, i, hardness, debias, low) for i, row in enumerate(t.detach().numpy())]
    objectives, slopes, clamped = zip(*rows, strict=True)
    assert any(clamped) == (debias > 0)
    assert not all(clamped)
    assert terms.objective.item() == pytest.approx(np.mean(objectives), abs=1e-12)
    np.testing.assert_allclose(gradient.numpy(), np.array(slopes) / 7, rtol=1e-11, atol=1e-13)


@weights
def test_value_is_that_of_plain_infonce(hardness, debias, low):
    t = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    scores = Scores.from_matrix(t)
    weighted, plain = bound_of(hardness, debias, low)(scores), bounds.InfoNCE()(scores)
    for name in ("value", "joint_term", "marginal_term", "log_normalizer"):
        given, expected = (getattr(terms, name) for terms in (weighted, plain))
        slopes = [torch.autograd.grad(term, t, retain_graph=True)[0] for term in (given, expected)]
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(*slopes, rtol=0, atol=1e-14)
    assert abs(weighted.objective - plain.objective) > 1e-3


def test_without_weights_the_objective_is_the_value():
    terms = bounds.InfoNCE(hardness=0.0)(Scores.from_matrix(torch.randn(4, 4)))
    assert terms.objective is terms.value


def test_vanishing_weights_approach_plain_infonce():
    scores = Scores.from_matrix(torch.randn(5, 5, dtype=torch.float64))
    terms = bounds.InfoNCE(hardness=1e-9, debias=1e-9, lowest_score=-50.0)(scores)
    assert terms.objective.item() == pytest.approx(terms.value.item(), abs=1e-7)


@weights
@pytest.mark.parametrize("pairing", [pairs.AllPairs, pairs.TwoViews])
def test_tiled_equals_dense(pairing, hardness, debias, low):
    critic, results = critics.BilinearCritic(3, 3).double(), []
    for tile_bytes in (100, math.inf):
        x, y = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        scores = pairing(tile_bytes=tile_bytes)(critic, x, y)
        terms = bound_of(hardness, debias, low)(scores)
        loss = 0.3 * terms.log_normalizer.square() - terms.objective
        results.append((torch.stack(terms), *torch.autograd.grad(loss, [x, y, critic.weight])))
        assert isinstance(scores._layout.marginals, TiledMarginals) == (tile_bytes == 100)
    for tiled, dense in zip(*results, strict=True):
        torch.testing.assert_close(tiled, dense, rtol=0, atol=1e-12)


def test_two_ranks_give_the_gradient_of_one(monkeypatch):
    spec = BoundSpec("InfoNCE(weighted)", lambda: bound_of(0.7, 0.1, -1.0), reference.infonce)
    monkeypatch.setitem(exactness.BOUNDS, spec.name, spec)
    chosen = exactness.cases([spec.name], ["AllPairs", "TwoViews(tiles)"], ["Squared-log"])
    for result in exactness.run(chosen, (8, 5), torch.float64):
        assert max(result.error, result.loss_error) <= 1e-12
        assert result.equal


def test_large_scores_stay_finite_and_nan_stays_nan():
    t = (1e4 * torch.randn(6, 6)).requires_grad_()
    terms = bounds.InfoNCE(hardness=1.0, debias=0.1, lowest_score=-1e4)(Scores.from_matrix(t))
    assert torch.isfinite(torch.autograd.grad(terms.objective, t)[0]).all()
    assert torch.isfinite(terms.objective)
    with torch.no_grad():
        t[0, 1] = math.nan
    with pytest.warns(match="nan"):
        assert bounds.InfoNCE(debias=0.1, lowest_score=-1.0)(Scores.from_matrix(t)).objective.isnan()


def test_batch_of_one_in_evaluation_has_no_estimate():
    critic, x = critics.InnerProductCritic(), torch.ones(1, 2)
    assert bounds.InfoNCE(hardness=1.0)(pairs.AllPairs().eval()(critic, x, x)).value.isnan()


@pytest.mark.parametrize("joint_and_marginal", ["masks", "labels"])
def test_pairs_by_masks_raise(joint_and_marginal):
    eye = torch.eye(4, dtype=torch.bool)
    scores = Scores.from_matrix(torch.randn(4, 4), joint=eye, marginal=~eye)
    if joint_and_marginal == "labels":
        scores = pairs.SameLabel()(critics.InnerProductCritic(), torch.randn(4, 2), torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match=r"^Got scores whose joint pairs are given by masks: .*Use pairs\.AllPairs"):
        bounds.InfoNCE(hardness=1.0)(scores)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"hardness": -0.5}, ValueError, r"^Got hardness=-0\.5: .* Choose 0 to 2"),
        ({"hardness": 1e8}, ValueError, r"^Got hardness=100000000\.0: .* at most 1000\.$"),
        ({"hardness": "1"}, TypeError, r"^Got hardness='1', a str"),
        ({"hardness": math.inf}, ValueError, r"^Got hardness=inf: it must be a finite number"),
        ({"debias": 1.0, "lowest_score": -2.0}, ValueError, r"^Got debias=1\.0: it is a probability"),
        ({"debias": -0.1, "lowest_score": -2.0}, ValueError, r"^Got debias=-0\.1: it is a probability"),
        ({"debias": 0.1}, ValueError, r"^Got debias=0\.1 and lowest_score=None: .* pass both or none"),
        ({"lowest_score": -2.0}, ValueError, r"^Got debias=0\.0 and lowest_score=-2\.0"),
    ],
)
def test_invalid_weights_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        bounds.InfoNCE(**arguments)
