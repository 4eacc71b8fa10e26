"""Huge and non-finite scores: terms are right if the mathematics is finite in float32, otherwise a warning is given."""

import warnings

import numpy as np
import pytest
import torch

from lightning_mi.exceptions import MINumericalWarning
from tests.helpers.layouts import LAYOUTS, Layout
from tests.helpers.reference import Reading
from tests.helpers.specs import BOUNDS, REGULARIZERS, BoundSpec, RegularizerSpec, by_name

DIAGONAL, MASKS, _, LISTS = LAYOUTS
CASES = [(spec, MASKS) for spec in BOUNDS] + [(spec, LISTS) for spec in BOUNDS if not spec.needs_rows]
CASE_IDS = [f"{spec.name}-{layout.name}" for spec, layout in CASES]
LARGEST = float(torch.finfo(torch.float32).max)


def _signs(layout: Layout) -> np.ndarray:
    return np.random.default_rng(3).choice([-1.0, 1.0], size=layout.joint.shape)


PATTERNS = {
    "all up": lambda layout: np.ones(layout.joint.shape),
    "all down": lambda layout: -np.ones(layout.joint.shape),
    "joint up, marginal down": lambda layout: np.where(layout.joint, 1.0, -1.0),
    "joint down, marginal up": lambda layout: np.where(layout.joint, -1.0, 1.0),
    "mixed": _signs,
    "spread": lambda layout: layout.draw(seed=3, std=1.0),
}
SIZES = [1e1, 1e2, 1e3, 1e4, 1e30, np.inf]


def is_finite_in_float32(x: float | np.ndarray) -> bool:
    return bool((np.abs(x) <= LARGEST).all())


def candidates(layout: Layout, t: torch.Tensor) -> torch.Tensor:
    return torch.tensor(layout.y, dtype=t.dtype)


def reading_of(spec: BoundSpec, layout: Layout, t: torch.Tensor) -> Reading:
    with np.errstate(over="ignore", invalid="ignore"):
        return spec.reference(layout.sheet(t.detach().double().numpy(), candidates(layout, t).double().numpy()))


def assert_right_or_warned(spec: BoundSpec, layout: Layout, t: torch.Tensor) -> bool:
    """Compare the finite terms; expect one warning if the reference has another. Return whether all are finite."""
    t = t.requires_grad_()
    reading = reading_of(spec, layout, t)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        terms = spec.make().float()(layout.scores(t, candidates(layout, t)))
        terms.objective.backward()
    finite = {name: is_finite_in_float32(getattr(reading, name)) for name in terms._fields}
    assert [warning.category for warning in caught] == ([] if all(finite.values()) else [MINumericalWarning])

    largest = max(1.0, np.abs(t.detach().double().numpy()[layout.joint]).max())
    for name, term in terms._asdict().items():
        expected = getattr(reading, name)
        if finite[name]:
            size = max(1.0, abs(expected), largest if name in ("value", "objective", "joint_term") else 0.0)
            assert term.item() == pytest.approx(expected, rel=0, abs=1e-5 * size), name
        else:
            assert not term.isfinite(), name
            assert name == "objective" or np.isnan(expected) or term.sign() == np.sign(expected), name
    if finite["objective"] and is_finite_in_float32(reading.d_objective):
        ulp = largest * torch.finfo(torch.float32).eps if spec.exponentiates_difference else 0.0
        rounding = max(1e-5, torch.finfo(t.dtype).eps, ulp)
        # A literal exponential may be finite in float32 but not in the dtype of the scores.
        gradient = torch.tensor(reading.d_objective).to(t.dtype).double().numpy()
        np.testing.assert_allclose(t.grad.double().numpy(), gradient, rtol=rounding, atol=max(1e-6, ulp))
        assert t.grad.isfinite().all() or t.dtype == torch.float16
    else:
        assert caught, "a gradient that is not finite needs a warning"
    return all(finite.values())


@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
def test_huge_scores_give_right_terms_or_a_warning(spec: BoundSpec, layout: Layout) -> None:
    for size in SIZES:
        for pattern in PATTERNS.values():
            assert_right_or_warned(spec, layout, torch.tensor(size * pattern(layout), dtype=torch.float32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_huge_scores_of_low_precision_do_so_too(spec: BoundSpec, dtype: torch.dtype) -> None:
    for size in (size for size in SIZES if size == np.inf or size <= torch.finfo(dtype).max):
        for pattern in PATTERNS.values():
            assert_right_or_warned(spec, MASKS, torch.tensor(size * pattern(MASKS)).to(dtype))


EXPONENTIAL = [case for case in CASES if case[0].averages_exponentials]


@pytest.mark.parametrize(("spec", "layout"), EXPONENTIAL, ids=[f"{s.name}-{layout.name}" for s, layout in EXPONENTIAL])
def test_minus_infinity_is_a_weight_of_zero_and_nan_warns(spec: BoundSpec, layout: Layout) -> None:
    t = torch.tensor(layout.draw(seed=2), dtype=torch.float32)
    t[tuple(np.argwhere(layout.marginal & ~layout.joint)[0])] = -torch.inf
    assert assert_right_or_warned(spec, layout, t), "the mathematics is finite"
    for used in (layout.joint, layout.marginal):
        t = torch.tensor(layout.draw(seed=2), dtype=torch.float32)
        t[tuple(np.argwhere(used)[0])] = torch.nan
        with pytest.warns(MINumericalWarning, match="nan"):
            spec.make().float()(layout.scores(t, candidates(layout, t)))


@pytest.mark.parametrize("size", [-1e4, 1e4, 1e30])
@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=by_name)
def test_huge_log_normalizer_gives_right_penalty_or_a_warning(regularizer: RegularizerSpec, size: float) -> None:
    spec, layout = BOUNDS[0], DIAGONAL
    t = torch.full(layout.joint.shape, size, dtype=torch.float32, requires_grad=True)
    with np.errstate(over="ignore", invalid="ignore"):
        expected, gradient = regularizer.penalty(reading_of(spec, layout, t), weight=0.5, target=0.0)
    bound = spec.make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        penalty = regularizer.make(weight=0.5)(bound(layout.scores(t)))
    if is_finite_in_float32(expected):
        assert not caught
        assert penalty.item() == pytest.approx(expected, rel=1e-5)
        penalty.backward()
        np.testing.assert_allclose(t.grad.numpy(), gradient, rtol=1e-5)
    else:
        assert [warning.category for warning in caught] == [MINumericalWarning]
        assert penalty == np.inf
