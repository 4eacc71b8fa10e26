"""What must hold for any scores whatever, on scores that Hypothesis makes up; the same ones in every run."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_mi import Scores
from lightning_mi.metrics.functional import mutual_information
from tests.helpers.reference import Sheet
from tests.helpers.specs import BOUNDS

FIELDS = ("value", "objective", "joint_term", "marginal_term", "log_normalizer")
SPECS = [spec for spec in BOUNDS if not spec.has_learned_baseline]
any_scores = settings(max_examples=40, derandomize=True, deadline=None, database=None)
numbers = st.floats(-20, 20, allow_subnormal=False)
sizes = st.shared(st.integers(2, 7), key="size")
matrices = sizes.flatmap(lambda n: arrays(np.float64, (n, n), elements=numbers))
over_bounds = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def read(spec, matrix):
    with torch.no_grad():
        terms = spec.make()(Scores.from_matrix(torch.as_tensor(matrix)))
    return np.array([float(getattr(terms, name)) for name in FIELDS])


def close(one, other, rtol=1e-9):
    np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


@over_bounds
@any_scores
@given(t=matrices)
def test_terms_are_those_of_the_formulas(spec, t):
    diagonal = np.eye(len(t), dtype=bool)
    expected = spec.reference(Sheet(t, diagonal, ~diagonal))
    close(read(spec, t), [getattr(expected, name) for name in FIELDS])


@over_bounds
@any_scores
@given(t=matrices, data=st.data())
def test_the_order_of_the_samples_does_not_matter(spec, t, data):
    order = data.draw(st.permutations(range(len(t))))
    close(read(spec, t[np.ix_(order, order)]), read(spec, t))


@over_bounds
@any_scores
@given(t=matrices, shift=st.floats(-5, 5))
def test_a_constant_moves_the_log_normalizer_and_for_some_nothing_else(spec, t, shift):
    before, after = read(spec, t), read(spec, t + shift)
    if spec.shift_invariant:
        close(after[:2], before[:2])
        close(after[4], before[4] + shift)


@pytest.mark.parametrize("name", ["NWJ", "TUBA", "JS"])
@any_scores
@given(t=matrices, shift=st.floats(-2, 2))
def test_the_self_normalized_notice_a_constant(name, t, shift):
    spec = next(spec for spec in SPECS if spec.name == name)
    value, _, _, marginal, _ = read(spec, t)
    close(read(spec, t + shift)[0], value + shift - np.expm1(shift) * marginal, rtol=1e-8)


@over_bounds
@any_scores
@given(t=matrices)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_scores_are_read_as_what_they_are_in_float32(spec, dtype, t):
    narrow = torch.as_tensor(t).to(dtype)
    assert read(spec, narrow).tolist() == read(spec, narrow.float()).tolist()


@over_bounds
@any_scores
@given(t=matrices)
def test_how_scores_lie_in_memory_does_not_matter(spec, t):
    apart = torch.zeros(2 * len(t), 3 * len(t), dtype=torch.float64)[::2, ::3]
    apart.copy_(torch.as_tensor(t))
    turned = torch.as_tensor(t.T.copy()).T
    assert not apart.is_contiguous()
    close(read(spec, apart), read(spec, t), rtol=1e-12)
    close(read(spec, turned), read(spec, t), rtol=1e-12)


@pytest.mark.parametrize(
    "spec", [s for s in SPECS if not s.needs_rows and s.name != "MINE"], ids=lambda spec: spec.name
)
@any_scores
@given(
    joint=arrays(np.float64, 8, elements=numbers),
    marginal=arrays(np.float64, 24, elements=numbers),
    cut=st.integers(1, 7),
)
def test_where_pairs_are_cut_into_batches_does_not_matter_to_micro(spec, joint, marginal, cut):
    def micro(parts):
        batches = [Scores.from_samples(torch.as_tensor(j), torch.as_tensor(m)) for j, m in parts]
        with torch.no_grad():
            return float(mutual_information(spec.make(), batches, average="micro").value)

    whole = micro([(joint, marginal)])
    close(micro([(joint[:cut], marginal[: 3 * cut]), (joint[cut:], marginal[3 * cut :])]), whole, rtol=1e-8)
