"""Every bound on every layout of scores against the NumPy reference: five scalars and two gradients."""

import numpy as np
import pytest
import torch

from lightning_mi import BoundTerms
from lightning_mi.bounds import gan_objective
from tests.helpers import reference
from tests.helpers.layouts import LAYOUTS, Layout
from tests.helpers.reference import Reading
from tests.helpers.specs import BOUNDS, CASE_IDS, CASES, REGULARIZERS, BoundSpec, RegularizerSpec, by_name, layouts_of

DIAGONAL = LAYOUTS[0]
# Moderate scores; beyond the clips; above the caps; far below them.
DRAWS = [{"seed": 1}, {"seed": 2, "std": 4.0}, {"seed": 3, "mean": 6.0}, {"seed": 4, "mean": -30.0, "std": 0.1}]


def assert_terms_equal(terms: BoundTerms, reading: Reading, tolerance: float) -> None:
    """Relative to the larger of a term and 1; a difference is no more precise than its two terms."""
    terms_scale = max(abs(reading.joint_term), abs(reading.marginal_term))
    for name, term in terms._asdict().items():
        assert term.shape == (), name
        expected = getattr(reading, name)
        size = max(1.0, abs(expected), terms_scale if name in ("value", "objective") else 0.0)
        assert term.item() == pytest.approx(expected, rel=0, abs=tolerance * size), name


@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
def test_terms_and_gradients_equal_the_reference_in_float64(spec: BoundSpec, layout: Layout) -> None:
    for draw in DRAWS:
        t = torch.tensor(layout.draw(**draw), requires_grad=True)
        terms, expected = spec.make()(layout.scores(t)), spec.reference(layout.sheet(t.detach().numpy()))
        assert_terms_equal(terms, expected, 1e-12)
        for term, gradient in (
            (terms.objective, expected.d_objective),
            (terms.log_normalizer, expected.d_log_normalizer),
        ):
            if not term.requires_grad:  # the entropy of BA is constant
                assert not gradient.any()
                continue
            (observed,) = torch.autograd.grad(term, t, retain_graph=True)
            np.testing.assert_allclose(observed.numpy(), gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_terms_equal_the_reference_in_float32(spec: BoundSpec) -> None:
    for layout in layouts_of(spec):
        for draw in DRAWS:
            t, y = (torch.tensor(a, dtype=torch.float32) for a in (layout.draw(**draw), layout.y))
            terms = spec.make().float()(layout.scores(t, y))
            assert {term.dtype for term in terms} == {torch.float32}
            assert_terms_equal(terms, spec.reference(layout.sheet(t.double().numpy(), y.double().numpy())), 1e-5)


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=by_name)
def test_gradient_of_regularized_objective_equals_the_formula(regularizer: RegularizerSpec) -> None:
    t = torch.tensor(DIAGONAL.draw(seed=5), requires_grad=True)
    spec = BOUNDS[0]
    terms = spec.make()(DIAGONAL.scores(t))
    penalty = regularizer.make(weight=0.7, target=-0.6)(terms)
    (terms.objective - penalty).backward()
    reading = spec.reference(DIAGONAL.sheet(t.detach().numpy()))
    expected, gradient = regularizer.penalty(reading, weight=0.7, target=-0.6)
    assert penalty.item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(t.grad.numpy(), reading.d_objective - gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_constant_added_to_scores_matters_as_declared(spec: BoundSpec) -> None:
    t = torch.tensor(DIAGONAL.draw(seed=7, std=0.5))
    terms, shifted = (spec.make()(DIAGONAL.scores(scores)) for scores in (t, t + 4))
    changes = [abs(shifted.value - terms.value).item(), abs(shifted.objective - terms.objective).item()]
    for change, invariant in zip(changes, (spec.value_shift_invariant, spec.objective_shift_invariant), strict=True):
        assert change < 1e-12 if invariant else change > 1e-3


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_scores_of_no_pair_get_no_gradient(spec: BoundSpec) -> None:
    layout = LAYOUTS[1]
    used = torch.tensor(layout.joint | layout.marginal)
    t = torch.tensor(layout.draw(seed=8)).masked_fill(~used, 1e6).requires_grad_()
    terms = spec.make()(layout.scores(t))
    terms.objective.backward()
    assert_terms_equal(terms, spec.reference(layout.sheet(layout.draw(seed=8))), 1e-12)
    assert t.grad is not None
    assert (t.grad[~used] == 0).all()
    assert t.grad.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS, ids=by_name)
def test_jensen_shannon_objective_equals_the_reference(layout: Layout) -> None:
    t = torch.tensor(layout.draw(std=3.0), requires_grad=True)
    objective = gan_objective(layout.scores(t))
    objective.backward()
    expected, gradient = reference.gan_objective(layout.sheet(t.detach().numpy()))
    assert objective.item() == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(t.grad.numpy(), gradient, atol=1e-12)
