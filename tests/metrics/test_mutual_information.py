import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import Scores, bounds
from lightning_mi.metrics import Estimate, LogNormalizer, MutualInformation, StandardError, functional
from tests.helpers.cuts import CASE_IDS, CASES, cut_lists, cut_rows, marginal_at_zero
from tests.helpers.specs import BOUND_KINDS, by_name

EXACT = {"rel": 1e-10, "abs": 1e-10}
AVERAGES = ["micro", "macro", "plug-in"]
every_average = pytest.mark.parametrize("average", AVERAGES)


def read(metric, pairs):
    for terms, scores in pairs:
        metric.update(terms, scores)
    return metric.compute()


@pytest.mark.parametrize(("spec", "cut"), CASES, ids=CASE_IDS)
def test_averages_of_uneven_batches_equal_the_reference(spec, cut):
    cut, bound = cut(5), spec.make()
    whole, terms = spec.reference(cut.whole), cut.terms(bound)
    expected = {
        "micro": whole.value,  # of all pairs at once
        "macro": np.mean([batch.value for batch in cut.readings(spec.reference)]),
        "plug-in": whole.joint_term - marginal_at_zero(spec),
    }
    for average, value in expected.items():
        assert read(MutualInformation(bound, average), terms).item() == pytest.approx(value, **EXACT), average
    assert read(LogNormalizer(bound), terms).item() == pytest.approx(whole.log_normalizer, **EXACT)


@pytest.mark.parametrize(
    ("bound", "marginal"), [(bounds.DV(), 0.5), (bounds.InfoNCE(), 0.5), (bounds.NWJ(), np.exp(0.5))]
)
def test_plug_in_uses_its_target(bound, marginal):
    cut = cut_rows(5)
    expected = cut.whole.t[cut.whole.joint].mean() - marginal
    metric = MutualInformation(bound, "plug-in", target=0.5)
    assert read(metric, cut.terms(bound)).item() == pytest.approx(expected, **EXACT)


@every_average
@pytest.mark.parametrize("spec", BOUND_KINDS, ids=by_name)
def test_order_of_batches_does_not_matter_and_functions_agree(spec, average):
    bound, cut = spec.make(), cut_rows(5)
    pairs = cut.terms(bound)
    results = [read(metric(bound, average), pairs) for metric in (MutualInformation, StandardError)]
    assert functional.mutual_information(bound, iter(cut.batches), average=average) == tuple(results)
    assert functional.log_normalizer(bound, cut.batches).value == read(LogNormalizer(bound), pairs)
    random.Random(1).shuffle(pairs)
    shuffled = [read(metric(bound, average), pairs) for metric in (MutualInformation, StandardError)]
    torch.testing.assert_close(shuffled, results, rtol=1e-12, atol=1e-12)


def test_function_does_not_update_a_moving_average():
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
        assert functional.mutual_information(bound, [full, last], average="macro").value.item() == pytest.approx(
            (bound(full).value + bound(last).value).item() / 2
        )
    assert functional.mutual_information(bounds.DV(), [full, last], average="plug-in").value.item() == pytest.approx(
        joint
    )


def test_infonce_rows_count_by_their_joint_pairs():
    # Two candidates a row; the first batch has two rows, the second one row: the log-normalizers are 0 and 5.
    two_rows = Scores.from_matrix(torch.zeros(2, 2))
    one_row = Scores.from_matrix(
        torch.full((1, 2), 5.0), joint=torch.tensor([[True, False]]), marginal=torch.tensor([[False, True]])
    )
    log_normalizer = functional.log_normalizer(bounds.InfoNCE(), [two_rows, one_row]).value
    assert log_normalizer.item() == pytest.approx(5 / 3)


@every_average
@pytest.mark.parametrize(
    "bound", [bounds.DV(), bounds.MINE(), bounds.SMILE(), bounds.InfoNCE()], ids=lambda b: type(b).__name__
)
def test_huge_scores_stay_finite(bound, average):
    rng = np.random.default_rng(0)
    for size in (1e4, -1e4):
        batches = [Scores.from_matrix(torch.tensor(size * rng.uniform(0.5, 1, (5, 5))).float()) for _ in range(3)]
        assert torch.isfinite(torch.stack(functional.mutual_information(bound, batches, average=average))).all()
        assert torch.isfinite(functional.log_normalizer(bound, batches).value)


@pytest.mark.parametrize("bound", [bounds.NWJ(), bounds.TUBA(), bounds.JS()], ids=lambda b: type(b).__name__)
def test_hugely_negative_scores_leave_the_joint_term(bound):
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
@every_average
def test_half_precision_scores_are_pooled_in_full_precision(average, dtype):
    rng = np.random.default_rng(0)
    matrices = [torch.tensor(rng.normal(0, 2, (n, n)), dtype=dtype) for n in (8, 5)]
    expected = functional.mutual_information(
        bounds.DV(), [Scores.from_matrix(m.double()) for m in matrices], average=average
    )
    actual = functional.mutual_information(bounds.DV(), [Scores.from_matrix(m) for m in matrices], average=average)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@every_average
def test_negative_estimate_is_reported_unchanged(average):
    scores = Scores.from_samples(torch.full((2,), -1.0), torch.full((2,), 2.0))
    expected = -1.0 if average == "plug-in" else -3.0
    assert functional.mutual_information(bounds.DV(), [scores], average=average).value == expected


def test_overflowing_marginal_term_gives_minus_infinity():
    scores = Scores.from_samples(torch.zeros(2), torch.full((2,), 1e4))
    with pytest.warns(RuntimeWarning, match="NWJ gave"):
        assert functional.mutual_information(bounds.NWJ(), [scores]).value == -torch.inf


def test_unknown_average_is_an_error():
    with pytest.raises(ValueError, match=r"Got average='plug_in': .*'micro', 'macro', 'plug-in'"):
        MutualInformation(bounds.DV(), "plug_in")


def test_function_without_a_batch_is_an_error():
    with pytest.raises(ValueError, match="no batch"):
        functional.mutual_information(bounds.DV(), [])


def test_metric_holds_no_parameters_of_the_bound():
    metric = MutualInformation(bounds.TUBA(nn.Linear(3, 1)), "plug-in")
    assert list(metric.modules()) == [metric]
    assert metric.state_dict() == {}
