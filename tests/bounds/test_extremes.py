"""Scores near the end of floating-point numbers: right where the mathematics is finite in float32, or reported."""

import warnings

import numpy as np
import pytest
import torch

from lightning_mi.exceptions import MINumericalWarning
from tests.helpers.paths import ROOT
from tests.helpers.reference import Reading
from tests.helpers.specs import BOUNDS, LAYOUTS, REGULARIZERS, BoundSpec, Layout, RegularizerSpec, by_name

DIAGONAL, MASKS, _, LISTS = LAYOUTS
CASES = [(spec, MASKS) for spec in BOUNDS] + [(spec, LISTS) for spec in BOUNDS if not spec.needs_rows]
CASE_IDS = [f"{spec.name}-{layout.name}" for spec, layout in CASES]
PAGE = ROOT / "docs" / "reliability.md"
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
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [1e1, 1e2, 1e3, 1e4, 1e30, np.inf]


def is_finite_in_float32(x: float | np.ndarray) -> bool:
    return bool((np.abs(x) <= LARGEST).all())


def candidates(layout: Layout, t: torch.Tensor) -> torch.Tensor:
    return torch.tensor(layout.y, dtype=t.dtype)


def reading_of(spec: BoundSpec, layout: Layout, t: torch.Tensor) -> Reading:
    with np.errstate(over="ignore", invalid="ignore"):
        return spec.reference(layout.sheet(t.detach().double().numpy(), candidates(layout, t).double().numpy()))


def assert_right_or_warned(spec: BoundSpec, layout: Layout, t: torch.Tensor) -> bool:
    """Compare with the reference whatever is finite there; return whether everything was."""
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
        # Both exponentiate a difference of two large numbers, known to one unit in the last place.
        ulp = largest * torch.finfo(torch.float32).eps if spec.name in ("MINE", "TUBA(learned)") else 0.0
        rounding = max(1e-5, torch.finfo(t.dtype).eps, ulp)
        # A literal exponential may be finite in float32, where it is read, and not in the scores' own type.
        gradient = torch.tensor(reading.d_objective).to(t.dtype).double().numpy()
        np.testing.assert_allclose(t.grad.double().numpy(), gradient, rtol=rounding, atol=max(1e-6, ulp))
        assert t.grad.isfinite().all() or (t.dtype == torch.float16 and spec.name.endswith("(cap=None)"))
    else:
        assert caught, "a gradient that is not finite went by in silence"
    return all(finite.values())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
def test_huge_scores_are_read_right_or_reported(
    spec: BoundSpec, layout: Layout, dtype: torch.dtype, size: float
) -> None:
    for pattern in PATTERNS.values():  # in one test: thousands would cost more than what they test
        assert_right_or_warned(spec, layout, torch.tensor(size * pattern(layout)).to(dtype))


def test_the_table_of_the_page_is_what_the_script_counts(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import extremes  # which takes the cases from here

    def is_finite(spec: BoundSpec, layout: Layout, t: torch.Tensor) -> bool:
        return is_finite_in_float32(np.array(reading_of(spec, layout, t)[:5]))

    extremes.main(is_finite)  # The test above holds each case to it.
    assert capsys.readouterr().out in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
def test_marginal_score_of_minus_infinity_counts_as_a_pair_of_no_weight(spec: BoundSpec, layout: Layout) -> None:
    t = torch.tensor(layout.draw(seed=2), dtype=torch.float32)
    t[tuple(np.argwhere(layout.marginal & ~layout.joint)[0])] = -torch.inf
    assert assert_right_or_warned(spec, layout, t), "the mathematics is finite"


@pytest.mark.parametrize(("spec", "layout"), CASES, ids=CASE_IDS)
@pytest.mark.parametrize("kind", ["joint", "marginal"])
def test_score_that_is_not_a_number_is_never_silent(spec: BoundSpec, layout: Layout, kind: str) -> None:
    t = torch.tensor(layout.draw(seed=2), dtype=torch.float32)
    used = layout.joint if kind == "joint" else layout.marginal
    t[tuple(np.argwhere(used)[0])] = torch.nan
    with pytest.warns(MINumericalWarning, match="nan"):
        spec.make().float()(layout.scores(t, torch.tensor(layout.y, dtype=torch.float32)))


@pytest.mark.parametrize("size", [-1e4, 1e4, 1e30])
@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=by_name)
def test_penalty_of_a_huge_log_normalizer_is_right_or_reported(regularizer: RegularizerSpec, size: float) -> None:
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
