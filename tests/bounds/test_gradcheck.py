"""Analytic against numerical derivatives, in float64."""

import pytest
import torch
from torch import Tensor

from lightning_mi.bounds import MINE
from tests.helpers.layouts import LAYOUTS
from tests.helpers.specs import BOUNDS, REGULARIZERS, BoundSpec, RegularizerSpec, by_name

MASKS = LAYOUTS[1]
MEANS = [0.0, 2.0]  # below and above the caps


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_derivatives_of_terms_equal_numerical_ones(spec: BoundSpec) -> None:
    bound = spec.make()

    def terms_of(t: Tensor) -> tuple[Tensor, ...]:
        terms = bound(MASKS.scores(t))
        # MINE's objective has a surrogate gradient; test_against_reference compares it with the formula.
        differentiated = terms._replace(objective=terms.value) if isinstance(bound, MINE) else terms
        return tuple(term for term in differentiated if term.requires_grad)  # without a constant marginal term

    for mean in MEANS:
        t = torch.tensor(MASKS.draw(seed=11, mean=mean, std=0.9), requires_grad=True)
        assert torch.autograd.gradcheck(terms_of, t, fast_mode=True)


@pytest.mark.parametrize("spec", REGULARIZERS, ids=by_name)
def test_derivatives_of_penalties_equal_numerical_ones(spec: RegularizerSpec) -> None:
    for mean in MEANS:
        log_normalizer = torch.tensor(mean - 0.1, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(spec.make(weight=0.7).penalty, log_normalizer)
