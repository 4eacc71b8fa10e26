"""Under autocast the critic rounds its scores; all later computation is float32."""

import pytest
import torch

from lightning_mi import BoundTerms, Scores
from lightning_mi.bounds import AbstractBound
from tests.bounds.test_against_reference import assert_terms_equal
from tests.helpers.layouts import LAYOUTS, Layout
from tests.helpers.specs import BOUNDS, REGULARIZERS, BoundSpec, RegularizerSpec, by_name, layouts_of

DIAGONAL = LAYOUTS[0]


def rounded_scores(layout: Layout, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs of a critic and an encoder under autocast."""
    t = torch.nn.functional.linear(
        torch.tensor(layout.draw(std=3.0), dtype=torch.float32), torch.eye(layout.joint.shape[-1])
    )
    y = torch.nn.functional.linear(torch.tensor(layout.y, dtype=torch.float32), torch.eye(2))
    assert {t.dtype, y.dtype} == {dtype}
    return t, y


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_terms_are_float32_and_exact_for_rounded_scores(spec: BoundSpec) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        for layout in layouts_of(spec):
            with torch.autocast("cpu", dtype=dtype):
                t, y = rounded_scores(layout, dtype)
                terms = spec.make().float()(layout.scores(t, y))
                assert torch.is_autocast_enabled("cpu"), "only the bound's formula leaves autocast"
            assert {term.dtype for term in terms} == {torch.float32}
            assert_terms_equal(terms, spec.reference(layout.sheet(t.double().numpy(), y.double().numpy())), 1e-5)


def test_formula_of_a_new_bound_runs_without_autocast() -> None:
    class Overlap(AbstractBound):
        """A formula with a matrix product, which autocast would round."""

        is_lower_bound, self_normalized, marginal_pooling = False, False, "mean"

        def terms(self, scores: Scores) -> BoundTerms:
            product = scores.joint[None] @ scores.joint[:, None]
            return BoundTerms(*[product.squeeze()] * 5)

        def marginal_at(self, target: float) -> float:
            return target

    scores = Scores.from_matrix((1 + 2**-12) * torch.eye(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Overlap()(scores).value.item() == pytest.approx(4 * (1 + 2**-12) ** 2, rel=1e-6)


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=by_name)
def test_penalty_is_float32_and_exact_for_rounded_scores(regularizer: RegularizerSpec) -> None:
    spec = BOUNDS[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        t, y = rounded_scores(DIAGONAL, torch.bfloat16)
        penalty = regularizer.make(weight=0.7)(spec.make().float()(DIAGONAL.scores(t, y)))
    reading = spec.reference(DIAGONAL.sheet(t.double().numpy(), y.double().numpy()))
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(regularizer.penalty(reading, weight=0.7, target=0.0)[0], rel=1e-5)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_log_ratio_does_not_change_under_autocast(spec: BoundSpec) -> None:
    t, y = torch.tensor(DIAGONAL.draw(), dtype=torch.float32), torch.tensor(DIAGONAL.y, dtype=torch.float32)
    bound = spec.make().float()
    expected = bound.log_ratio(DIAGONAL.scores(t, y))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(bound.log_ratio(DIAGONAL.scores(t, y)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_gradient_reaches_weights_in_half_precision(spec: BoundSpec) -> None:
    weight = torch.eye(6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        t = torch.nn.functional.linear(torch.tensor(DIAGONAL.draw(), dtype=torch.float32), weight)
        spec.make().float()(DIAGONAL.scores(t, torch.tensor(DIAGONAL.y).float())).objective.backward()
    reading = spec.reference(DIAGONAL.sheet(t.detach().double().numpy()))
    expected = reading.d_objective.T @ DIAGONAL.draw()
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(weight.grad, torch.tensor(expected).float(), rtol=0.02, atol=0.02)
