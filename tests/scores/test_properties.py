"""Properties of the bounds on any scores, by Hypothesis; the same examples in every run."""

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
over_bounds = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
any_bound = st.sampled_from(SPECS)
numbers = st.floats(-20, 20, allow_subnormal=False)
sizes = st.shared(st.integers(2, 7), key="size")
matrices = sizes.flatmap(lambda n: arrays(np.float64, (n, n), elements=numbers))


def read(spec, matrix):
    with torch.no_grad():
        terms = spec.make()(Scores.from_matrix(torch.as_tensor(matrix)))
    return np.array([float(getattr(terms, name)) for name in FIELDS])


def close(actual, expected, rtol=1e-9):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)


@over_bounds
@any_scores
@given(t=matrices)
def test_terms_equal_the_formulas(spec, t):
    diagonal = np.eye(len(t), dtype=bool)
    expected = spec.reference(Sheet(t, diagonal, ~diagonal))
    close(read(spec, t), [getattr(expected, name) for name in FIELDS])


@any_scores
@given(spec=any_bound, t=matrices, data=st.data())
def test_order_of_the_samples_does_not_matter(spec, t, data):
    order = data.draw(st.permutations(range(len(t))))
    close(read(spec, t[np.ix_(order, order)]), read(spec, t))


@any_scores
@given(spec=st.sampled_from([s for s in SPECS if s.objective_shift_invariant]), t=matrices, shift=st.floats(-5, 5))
def test_shift_invariant_objectives_move_only_their_log_normalizer(spec, t, shift):
    before, after = read(spec, t), read(spec, t + shift)
    close(after[1], before[1])
    if spec.value_shift_invariant:
        close(after[0], before[0])
    close(after[4], before[4] + shift)


@any_scores
@given(spec=st.sampled_from([s for s in SPECS if s.name in ("NWJ", "TUBA", "JS")]), t=matrices, shift=st.floats(-2, 2))
def test_self_normalized_bounds_change_with_a_constant(spec, t, shift):
    value, _, _, marginal, _ = read(spec, t)
    close(read(spec, t + shift)[0], value + shift - np.expm1(shift) * marginal, rtol=1e-8)


@any_scores
@given(spec=any_bound, t=matrices, dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_half_precision_scores_are_read_in_float32(spec, t, dtype):
    narrow = torch.as_tensor(t).to(dtype)
    assert read(spec, narrow).tolist() == read(spec, narrow.float()).tolist()


@any_scores
@given(spec=any_bound, t=matrices)
def test_memory_layout_does_not_matter(spec, t):
    strided = torch.zeros(2 * len(t), 3 * len(t), dtype=torch.float64)[::2, ::3]
    strided.copy_(torch.as_tensor(t))
    transposed = torch.as_tensor(t.T.copy()).T
    assert not strided.is_contiguous()
    close(read(spec, strided), read(spec, t), rtol=1e-12)
    close(read(spec, transposed), read(spec, t), rtol=1e-12)


@any_scores
@given(
    spec=st.sampled_from([s for s in SPECS if not s.needs_rows]),
    joint=arrays(np.float64, 8, elements=numbers),
    marginal=arrays(np.float64, 24, elements=numbers),
    cut=st.integers(1, 7),
)
def test_micro_average_does_not_depend_on_batches(spec, joint, marginal, cut):
    def micro(parts):
        batches = [Scores.from_samples(torch.as_tensor(j), torch.as_tensor(m)) for j, m in parts]
        with torch.no_grad():
            return float(mutual_information(spec.make(), batches, average="micro").value)

    whole = micro([(joint, marginal)])
    close(micro([(joint[:cut], marginal[: 3 * cut]), (joint[cut:], marginal[3 * cut :])]), whole, rtol=1e-8)
