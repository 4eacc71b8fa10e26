"""The class attributes of bounds against their behaviour on a discrete law with exact expectations."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from lightning_mi import BoundTerms, Scores, bounds
from tests.helpers.law import COUNTS, JOINT, LOG_RATIO, MI, critics, optimum, read, scores_of
from tests.helpers.specs import BOUNDS, BoundSpec, by_name


@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if spec.make().is_lower_bound], ids=by_name)
def test_lower_bound_is_never_above_the_mutual_information(spec: BoundSpec) -> None:
    assert max(read(spec, critic).value.item() for critic in critics(spec)) <= MI + 1e-12


@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if spec.exceeds], ids=by_name)
def test_other_bounds_can_exceed_the_mutual_information(spec: BoundSpec) -> None:
    assert read(spec, optimum(spec) + 100).value > MI + 50


def test_only_bounds_that_can_exceed_are_not_lower_bounds() -> None:
    above = {type(spec.make()) for spec in BOUNDS if spec.exceeds}
    others = [spec for spec in BOUNDS if not spec.needs_log_density]
    assert above == {type(spec.make()) for spec in others if not spec.make().is_lower_bound}


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_value_at_the_optimal_critic_is_mi_plus_its_gap(spec: BoundSpec) -> None:
    assert read(spec, optimum(spec)).value.item() == pytest.approx(MI + spec.gap, abs=1e-12)


@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if spec.has_maximum], ids=by_name)
def test_objective_is_highest_at_the_optimal_critic(spec: BoundSpec) -> None:
    best = read(spec, optimum(spec)).objective.item()
    assert max(read(spec, critic).objective.item() for critic in critics(spec)) <= best + 1e-12


def test_infonce_of_few_candidates_is_too_low_on_average() -> None:
    """The exact expectation over all batches of three pairs."""
    atoms = np.argwhere(COUNTS)
    for critic in critics(BOUNDS[0], count=2):
        expectation = 0.0
        for batch in itertools.product(range(9), repeat=3):
            x, y = atoms[list(batch)].T
            matrix = torch.tensor(critic[x[:, None], y])
            expectation += JOINT[x, y].prod() * bounds.InfoNCE()(Scores.from_matrix(matrix)).value.item()
        assert expectation < min(MI, np.log(3))


@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if spec.make().self_normalized], ids=by_name)
def test_shift_lowers_the_objective_of_a_self_normalized_bound(spec: BoundSpec) -> None:
    for shift in (-0.4, 0.4):
        assert read(spec, optimum(spec) + shift).objective < read(spec, optimum(spec)).objective - 0.01
    assert not spec.objective_shift_invariant


@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if spec.objective_shift_invariant], ids=by_name)
def test_shift_is_free_for_shift_invariant_objectives(spec: BoundSpec) -> None:
    terms, shifted = read(spec, optimum(spec)), read(spec, optimum(spec) + 0.4)
    assert shifted.objective.item() == pytest.approx(terms.objective.item(), abs=1e-12)
    assert shifted.log_normalizer.item() == pytest.approx(terms.log_normalizer.item() + 0.4, abs=1e-12)
    assert not spec.make().self_normalized


def test_only_bounds_with_a_free_shift_are_not_self_normalized() -> None:
    free = {type(spec.make()) for spec in BOUNDS if spec.objective_shift_invariant}
    # SMILE's value depends on a shift because of its clip, but it admits any target, as DV does; ReleasedJS has another
    # quantity in place of the log-normalizer. Log-densities are normalized by construction.
    densities = {type(spec.make()) for spec in BOUNDS if spec.needs_log_density}
    exceptions = {bounds.SMILE, bounds.ReleasedJS} | densities
    assert {type(spec.make()) for spec in BOUNDS if not spec.make().self_normalized} == free | exceptions


@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if spec.log_normalizer is not None], ids=by_name)
def test_log_normalizer_at_the_optimal_critic_equals_its_declaration(spec: BoundSpec) -> None:
    assert read(spec, optimum(spec)).log_normalizer.item() == pytest.approx(spec.log_normalizer, abs=1e-12)


@pytest.mark.parametrize(("weight", "loss"), [(1.0, 0.217), (0.1, 0.015)])
def test_regularized_released_nwj_is_low_by_its_known_gap(weight: float, loss: float) -> None:
    def terms_at(shift: float) -> BoundTerms:
        return bounds.ReleasedNWJ()(scores_of(LOG_RATIO + 1 + shift))

    def cost(shift: float) -> float:
        terms = terms_at(shift)
        return (weight * terms.log_normalizer**2 - terms.objective).item()

    shift = minimize_scalar(cost, bounds=(-2, 1), options={"xatol": 1e-8}).x
    assert terms_at(shift).value.item() == pytest.approx(MI - loss, abs=5e-4)


@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if spec.make().capped_at_log_n], ids=by_name)
def test_capped_bound_reaches_log_n_and_never_exceeds_it(spec: BoundSpec) -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (2, 5):
        for std in (1.0, 30.0):
            t = std * torch.randn(100, n, n, generator=generator, dtype=torch.float64)
            assert max(spec.make()(Scores.from_matrix(matrix)).value for matrix in t) <= np.log(n) + 1e-12
        best = spec.make()(Scores.from_matrix(50 * torch.eye(n, dtype=torch.float64))).value
        assert best.item() == pytest.approx(np.log(n), abs=1e-12)


@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if not spec.make().capped_at_log_n], ids=by_name)
def test_other_bounds_can_exceed_log_n(spec: BoundSpec) -> None:
    t = torch.full((4, 4), -1.0, dtype=torch.float64).fill_diagonal_(50.0)
    assert spec.make()(Scores.from_matrix(t, y=torch.zeros(4, 2))).value > np.log(4) + 0.1


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_marginal_terms_of_batches_pool_as_declared(spec: BoundSpec) -> None:
    """Three and seventeen rows of the same candidates, against all twenty at once."""
    matrix, y = torch.tensor(np.random.default_rng(1).normal(size=(20, 6))), torch.zeros(6, 2)
    marginal = torch.rand(20, 6) < 0.6
    joint = torch.nn.functional.one_hot(torch.arange(20) % 6, 6).bool()
    parts = [
        Scores.from_matrix(matrix[rows], joint=joint[rows], marginal=marginal[rows], y=y)
        for rows in (slice(0, 3), slice(3, 20), slice(0, 20))
    ]
    bound = spec.make()
    *terms, whole = [bound.eval()(part).marginal_term.item() for part in parts]
    # A bound that is normalized by rows counts a row once for each of its joint pairs.
    weights = [part.num_joint if bound.normalized_by_row else part.num_marginal for part in parts[:2]]
    if bound.marginal_pooling == "log_mean_exp":
        pooled = np.log(np.average(np.exp(terms), weights=weights))
    else:
        pooled = np.average(terms, weights=weights)
    assert pooled == pytest.approx(whole, abs=1e-12)


def test_defaults_are_those_of_the_papers() -> None:
    far = Scores.from_matrix(50.0 - 100.0 * torch.eye(4, dtype=torch.float64))
    assert bounds.SMILE()(far).marginal_term == 5
    assert bounds.SMILE()(far).joint_term == -50
    assert bounds.SMILE()(far).objective == bounds.SMILE()(far).value == -55
    for kind in (bounds.NWJ, bounds.TUBA):
        torch.testing.assert_close(tuple(kind()(far)), tuple(kind(cap=1.0)(far)), rtol=0, atol=0)
    assert bounds.TUBA()(far).log_normalizer == bounds.TUBA(baseline=1.0)(far).log_normalizer == 50
    mine = bounds.MINE().double()
    for batch in (torch.zeros(4, 4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float64)):
        mine(Scores.from_matrix(batch))
    assert mine.log_average.item() == pytest.approx(np.log(0.99 + 0.01 * np.e))
