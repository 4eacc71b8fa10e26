import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import Scores, bounds
from lightning_mi.metrics import Estimate, LogNormalizer, MutualInformation, functional
from tests.helpers.cuts import CASE_IDS, CASES, PIECES, cut_lists, cut_rows, marginal_at_optimum
from tests.helpers.specs import BOUNDS, by_name

EXACT = {"rel": 1e-10, "abs": 1e-10}
AVERAGES = ["micro", "macro", "plug-in"]


def read(metric, pairs):
    for terms, scores in pairs:
        metric.update(terms, scores)
    return metric.compute()


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize(("spec", "cut"), CASES, ids=CASE_IDS)
def test_micro_is_the_bound_of_all_pairs_however_they_are_cut(spec, cut, pieces):
    cut, bound = cut(pieces), spec.make()
    expected = spec.reference(cut.whole).value
    assert read(MutualInformation(bound), cut.terms(bound)).item() == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize(("spec", "cut"), CASES, ids=CASE_IDS)
def test_macro_is_the_mean_of_the_batches_values(spec, cut):
    cut, bound = cut(5), spec.make()
    expected = np.mean([reading.value for reading in cut.readings(spec.reference)])
    assert read(MutualInformation(bound, "macro"), cut.terms(bound)).item() == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize(("spec", "cut"), CASES, ids=CASE_IDS)
def test_plug_in_is_the_pooled_joint_term_minus_the_marginal_term_at_its_target(spec, cut, pieces):
    cut, bound = cut(pieces), spec.make()
    expected = spec.reference(cut.whole).joint_term - marginal_at_optimum(spec)
    assert read(MutualInformation(bound, "plug-in"), cut.terms(bound)).item() == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize(
    ("bound", "marginal"), [(bounds.DV(), 0.5), (bounds.InfoNCE(), 0.5), (bounds.NWJ(), np.exp(0.5))]
)
def test_plug_in_takes_the_target_that_it_is_given(bound, marginal):
    cut = cut_rows(5)
    expected = cut.whole.t[cut.whole.joint].mean() - marginal
    metric = MutualInformation(bound, "plug-in", target=0.5)
    assert read(metric, cut.terms(bound)).item() == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize(("spec", "cut"), CASES, ids=CASE_IDS)
def test_log_normalizer_is_that_of_all_pairs_however_they_are_cut(spec, cut, pieces):
    cut, bound = cut(pieces), spec.make()
    expected = spec.reference(cut.whole).log_normalizer
    assert read(LogNormalizer(bound), cut.terms(bound)).item() == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(("spec", "cut"), CASES, ids=CASE_IDS)
def test_the_order_of_batches_does_not_matter(spec, cut, average):
    bound = spec.make()
    pairs = cut(5).terms(bound)
    metric = MutualInformation(bound, average, return_standard_error=True)
    first = read(metric, pairs)
    random.Random(1).shuffle(pairs)
    metric.reset()
    torch.testing.assert_close(read(metric, pairs), first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_the_function_gives_what_the_class_gives(spec, average):
    bound, cut = spec.make(), cut_rows(5)
    expected = read(MutualInformation(bound, average, return_standard_error=True), cut.terms(bound))
    assert functional.mutual_information(bound, iter(cut.batches), average) == expected


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_the_log_normalizer_function_gives_what_the_class_gives(spec):
    bound, cut = spec.make(), cut_rows(5)
    assert functional.log_normalizer(bound, cut.batches).value == read(LogNormalizer(bound), cut.terms(bound))


def test_the_function_does_not_move_a_moving_average():
    bound = bounds.MINE()
    functional.mutual_information(bound, cut_lists(2).batches)
    assert bound.num_updates == 0


def test_a_smaller_last_batch_counts_by_its_pairs():
    full = Scores.from_samples(torch.full((4,), 1.0), torch.full((6,), 0.0))
    last = Scores.from_samples(torch.full((1,), 6.0), torch.full((2,), 3.0))
    joint = (4 * 1.0 + 1 * 6.0) / 5
    marginals = {bounds.DV(): np.log((6 + 2 * np.exp(3)) / 8), bounds.JS(): (6 + 2 * np.exp(3)) / 8 - 1}
    for bound, marginal in marginals.items():
        assert functional.mutual_information(bound, [full, last]).value.item() == pytest.approx(joint - marginal)
        assert functional.mutual_information(bound, [full, last], "macro").value.item() == pytest.approx(
            (bound(full).value + bound(last).value).item() / 2
        )
    assert functional.mutual_information(bounds.DV(), [full, last], "plug-in").value.item() == pytest.approx(joint)


def test_infonce_rows_count_by_their_joint_pairs():
    # Two candidates a row; the first batch has two rows, the second one row: the log-normalizers are 0 and 5.
    two = Scores.from_matrix(torch.zeros(2, 2))
    one = Scores.from_matrix(
        torch.full((1, 2), 5.0), joint=torch.tensor([[True, False]]), marginal=torch.tensor([[False, True]])
    )
    log_normalizer = functional.log_normalizer(bounds.InfoNCE(), [two, one]).value
    assert log_normalizer.item() == pytest.approx(5 / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(
    "bound", [bounds.DV(), bounds.MINE(), bounds.SMILE(), bounds.InfoNCE()], ids=lambda b: type(b).__name__
)
def test_huge_scores_stay_finite(bound, average, size, dtype):
    rng = np.random.default_rng(0)
    batches = [Scores.from_matrix(torch.tensor(size * rng.uniform(0.5, 1, (5, 5)), dtype=dtype)) for _ in range(3)]
    estimate = functional.mutual_information(bound, batches, average)
    assert torch.isfinite(torch.stack(estimate)).all()
    assert torch.isfinite(functional.log_normalizer(bound, batches).value)


@pytest.mark.parametrize("bound", [bounds.NWJ(), bounds.TUBA(), bounds.JS()], ids=lambda b: type(b).__name__)
def test_hugely_negative_scores_leave_the_joint_term_of_a_self_normalized_bound(bound):
    batches = [Scores.from_matrix(torch.full((3, 3), -1e4, dtype=torch.float64)) for _ in range(2)]
    expected = -1e4 if isinstance(bound, bounds.NWJ) else 1 - 1e4
    assert functional.mutual_information(bound, batches) == Estimate(torch.tensor(expected), torch.tensor(0.0))


def test_huge_and_tiny_batches_pool_as_one():
    # The first batch alone has a log-normalizer of 1e4, and its pairs are a third of all.
    batches = [Scores.from_samples(torch.zeros(2), torch.full((k,), t)) for k, t in [(1, 1e4), (1, 0.0), (1, -1e4)]]
    expected = 1e4 - np.log(3)
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        log_normalizer = functional.log_normalizer(bounds.DV(), [batches[i] for i in order]).value
        assert log_normalizer.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("average", AVERAGES)
def test_half_precision_scores_are_pooled_in_full_precision(average, dtype):
    rng = np.random.default_rng(0)
    matrices = [torch.tensor(rng.normal(0, 2, (n, n)), dtype=dtype) for n in (8, 5)]
    expected = functional.mutual_information(bounds.DV(), [Scores.from_matrix(m.double()) for m in matrices], average)
    actual = functional.mutual_information(bounds.DV(), [Scores.from_matrix(m) for m in matrices], average)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("average", AVERAGES)
def test_a_negative_estimate_is_reported_as_it_is(average):
    scores = Scores.from_samples(torch.full((2,), -1.0), torch.full((2,), 2.0))
    expected = -1.0 if average == "plug-in" else -3.0
    assert functional.mutual_information(bounds.DV(), [scores], average).value == expected


def test_a_marginal_term_beyond_floating_point_reads_minus_infinity():
    scores = Scores.from_samples(torch.zeros(2), torch.full((2,), 1e4))
    with pytest.warns(RuntimeWarning, match="NWJ read"):
        assert functional.mutual_information(bounds.NWJ(), [scores]).value == -torch.inf


@pytest.mark.parametrize("average", ["", "mean", None, "plug_in"])
def test_an_unknown_average_is_refused_with_the_three_that_exist(average):
    with pytest.raises(ValueError, match=r"'micro'.*'macro'.*'plug-in'"):
        MutualInformation(bounds.DV(), average)


def test_no_batch_at_all_is_refused_by_the_function():
    with pytest.raises(ValueError, match="no batch"):
        functional.mutual_information(bounds.DV(), [])


def test_a_learned_baseline_is_not_kept():
    metric = MutualInformation(bounds.TUBA(nn.Linear(3, 1)), "plug-in")
    assert list(metric.modules()) == [metric]
    assert metric.state_dict() == {}
