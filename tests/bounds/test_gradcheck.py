"""Analytic against numerical derivatives, in float64: every bound with every regularizer."""

import pytest
import torch
from torch import Tensor

from lightning_mi.bounds import MINE
from tests.helpers.specs import BOUNDS, LAYOUTS, REGULARIZERS, BoundSpec, Layout, RegularizerSpec, by_name

MATRICES = [layout for layout in LAYOUTS if layout.has_rows]


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=by_name)
@pytest.mark.parametrize("mean", [0.0, 2.0], ids=["below the cap", "above the cap"])
@pytest.mark.parametrize("layout", MATRICES, ids=by_name)
@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_derivatives_of_value_objective_and_penalty_are_numerically_right(
    spec: BoundSpec, layout: Layout, mean: float, regularizer: RegularizerSpec
) -> None:
    bound, penalize = spec.make(), regularizer.make(weight=0.7)

    def read(t: Tensor) -> tuple[Tensor, ...]:
        terms = bound(layout.scores(t))
        # MINE ascends a surrogate: its gradient is compared with the formula, in test_against_reference.
        objective = () if isinstance(bound, MINE) else (terms.objective,)
        return terms.value, terms.log_normalizer, penalize(terms), *objective

    t = torch.tensor(layout.draw(seed=11, mean=mean, std=0.9), requires_grad=True)
    assert torch.autograd.gradcheck(read, t, fast_mode=True)
