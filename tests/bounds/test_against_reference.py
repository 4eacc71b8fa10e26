"""Every bound on every layout of scores, against the NumPy reference: five scalars and the objective's gradient."""

import numpy as np
import pytest
import torch

from lightning_mi import BoundTerms
from lightning_mi.bounds import gan_objective
from tests.helpers import reference
from tests.helpers.reference import Reading
from tests.helpers.specs import (
    BOUNDS,
    CASE_IDS,
    CASES,
    LAYOUTS,
    REGULARIZERS,
    BoundSpec,
    Layout,
    RegularizerSpec,
    by_name,
)

DIAGONAL = LAYOUTS[0]
DRAWS = [{"seed": 1}, {"seed": 2, "std": 4.0}, {"seed": 3, "mean": 6.0}, {"seed": 4, "mean": -30.0, "std": 0.1}]


def assert_terms_equal(terms: BoundTerms, reading: Reading, tolerance: float) -> None:
    """Relative to the larger of a term and 1; a difference cannot be more precise than what it is taken of."""
    scale = max(1.0, abs(reading.joint_term), abs(reading.marginal_term))
    for name, term in terms._asdict().items():
        assert term.shape == (), name
        expected = getattr(reading, name)
        size = scale if name in ("value", "objective") else max(1.0, abs(expected))
        assert term.item() == pytest.approx(expected, rel=0, abs=tolerance * size), name


@pytest.mark.parametrize("draw", DRAWS, ids=str)
@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
def test_terms_equal_the_reference_in_float64(spec: BoundSpec, layout: Layout, draw: dict) -> None:
    t = layout.draw(**draw)
    assert_terms_equal(spec.make()(layout.scores(torch.tensor(t))), spec.reference(layout.sheet(t)), 1e-12)


@pytest.mark.parametrize("draw", DRAWS, ids=str)
@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
def test_terms_equal_the_reference_in_float32(spec: BoundSpec, layout: Layout, draw: dict) -> None:
    t = torch.tensor(layout.draw(**draw), dtype=torch.float32)
    y = torch.tensor(layout.y, dtype=torch.float32)
    terms = spec.make().float()(layout.scores(t, y))
    assert {term.dtype for term in terms} == {torch.float32}
    assert_terms_equal(terms, spec.reference(layout.sheet(t.double().numpy(), y.double().numpy())), 1e-5)


@pytest.mark.parametrize("draw", DRAWS, ids=str)
@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
def test_gradient_of_objective_equals_the_formula(spec: BoundSpec, layout: Layout, draw: dict) -> None:
    t = torch.tensor(layout.draw(**draw), requires_grad=True)
    spec.make()(layout.scores(t)).objective.backward()
    expected = spec.reference(layout.sheet(t.detach().numpy())).d_objective
    np.testing.assert_allclose(t.grad.numpy(), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=by_name)
@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
def test_gradient_of_regularized_objective_equals_the_formula(
    spec: BoundSpec, layout: Layout, regularizer: RegularizerSpec
) -> None:
    t = torch.tensor(layout.draw(seed=5), requires_grad=True)
    bound = spec.make()
    target = 0.0 if bound.self_normalized else -0.6
    terms = bound(layout.scores(t))
    penalty = regularizer.make(weight=0.7, target=target)(terms)
    (terms.objective - penalty).backward()
    reading = spec.reference(layout.sheet(t.detach().numpy()))
    expected, gradient = regularizer.penalty(reading, weight=0.7, target=target)
    assert penalty.item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(t.grad.numpy(), reading.d_objective - gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_order_of_the_samples_does_not_matter(spec: BoundSpec) -> None:
    t, y = torch.tensor(DIAGONAL.draw(seed=6)), torch.tensor(DIAGONAL.y)
    order = torch.randperm(len(t))
    terms = spec.make()(DIAGONAL.scores(t, y))
    permuted = spec.make()(DIAGONAL.scores(t[order][:, order], y[order]))
    torch.testing.assert_close(tuple(permuted), tuple(terms), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
def test_constant_added_to_scores_changes_only_what_is_not_shift_invariant(spec: BoundSpec, layout: Layout) -> None:
    t = torch.tensor(layout.draw(seed=7, std=0.5))
    terms, shifted = (spec.make()(layout.scores(scores)) for scores in (t, t + 4))
    changes = [abs(shifted.value - terms.value).item(), abs(shifted.objective - terms.objective).item()]
    if spec.shift_invariant:
        assert max(changes) < 1e-12
    else:
        assert min(changes) > 1e-3


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_scores_that_are_neither_joint_nor_marginal_get_no_gradient(spec: BoundSpec) -> None:
    layout = LAYOUTS[1]
    used = torch.tensor(layout.joint | layout.marginal)
    t = torch.tensor(layout.draw(seed=8)).masked_fill(~used, 1e6).requires_grad_()
    terms = spec.make()(layout.scores(t))
    terms.objective.backward()
    assert_terms_equal(terms, spec.reference(layout.sheet(layout.draw(seed=8))), 1e-12)
    assert (t.grad[~used] == 0).all()
    assert t.grad.isfinite().all()


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_value_is_the_joint_term_minus_the_marginal_term(spec: BoundSpec) -> None:
    terms = spec.make()(DIAGONAL.scores(torch.tensor(DIAGONAL.draw(seed=9))))
    assert terms.value.item() == pytest.approx((terms.joint_term - terms.marginal_term).item(), abs=1e-13)


@pytest.mark.parametrize("layout", LAYOUTS, ids=by_name)
def test_the_jensen_shannon_objective_by_itself_equals_the_reference(layout: Layout) -> None:
    t = torch.tensor(layout.draw(std=3.0), requires_grad=True)
    objective = gan_objective(layout.scores(t))
    objective.backward()
    expected, gradient = reference.gan_objective(layout.sheet(t.detach().numpy()))
    assert objective.item() == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(t.grad.numpy(), gradient, atol=1e-12)
