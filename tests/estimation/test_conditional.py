"""Conditional MI by the chain rule: values, errors of differences, the test given labels, and findings."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mi import estimate
from lightning_mi.data.laws import ConfoundedGaussian
from lightning_mi.estimation.cross_checks import conditional_cross_checks, cross_checks
from lightning_mi.estimation.cross_fit import CrossFitter
from lightning_mi.estimation.findings import Evidence, find_conditional
from lightning_mi.estimation.held_out import HeldOutBlock, Reading, permutation_p_value
from lightning_mi.estimation.inputs import read_variable
from lightning_mi.estimation.readout import Readout, subtract
from lightning_mi.estimation.schedule import Schedule
from lightning_mi.exceptions import EstimateInputError


def confounded(n=400):
    law = ConfoundedGaussian(dim=1)
    return (*law.sample(n, torch.Generator().manual_seed(0)), law.true_conditional_mi)


@pytest.fixture(scope="module")
def result():
    x, y, z, _ = confounded()
    return estimate(x, y, conditional_on=z, budget="quick", permutations=19, folds=2)


def test_confounded_gaussian_is_estimated_within_its_error(result):
    truth = confounded()[-1]
    assert result.mi == pytest.approx(truth, abs=0.1)
    assert result.lower < truth
    assert result.cross_checks["gaussian_copula"] == pytest.approx(truth, abs=0.1)
    assert result.pointwise.mean() == pytest.approx(result.mi, abs=1e-6)


def test_numbers_as_condition_have_no_p_value(result):
    assert np.isnan(result.p_value)
    lines = str(result).splitlines()
    assert lines[0].startswith("conditional MI = ")
    assert "z continuous; conditional independence not tested" in lines[1]
    assert json.loads(result.to_json())["p_value"] is None
    assert result.kinds == ("continuous",) * 3


def test_quick_budget_has_a_finding_about_the_lower_limit(result):
    assert "not_extrapolated" in [finding.code for finding in result.findings]


def test_common_label_explains_the_dependence(short_plans):
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 500)
    x, y = 3 * z + rng.normal(size=500), 3 * z + rng.normal(size=500)  # I(x; y) = 0.4
    given = estimate(x, y, conditional_on=z, budget="quick", permutations=99, folds=2)
    assert abs(given.mi) < 0.1
    assert given.lower < 0
    assert given.p_value > 0.01
    assert given.kinds[2] == "discrete"


def test_both_fits_have_the_same_splits(short_plans, monkeypatch):
    fits = []
    call = CrossFitter.__call__

    def record(self, *arguments):
        fits.append(call(self, *arguments))
        return fits[-1]

    monkeypatch.setattr(CrossFitter, "__call__", record)
    x, y, z, _ = confounded(100)
    given = estimate(x, y, conditional_on=z, budget="quick", folds=2, permutations=19)
    first, second = fits
    for a, b in zip(first.splits, second.splits, strict=True):
        np.testing.assert_array_equal(a.train, b.train)
        np.testing.assert_array_equal(a.validation, b.validation)
    difference = second.reading.influence - first.reading.influence
    assert given.standard_error >= difference.std() / 10
    assert given.mi == pytest.approx(second.reading.value - first.reading.value)


def reading(value, folds, influence):
    return Reading(value, np.array(folds), np.array(influence), np.array(influence) + value, np.array([9.0, 9.0]))


def test_errors_are_those_of_the_differences():
    half, full = reading(1.0, [0.9, 1.1], [1, -1]), reading(1.2, [1.1, 1.3], [1, -1])
    joint = Readout((50, 100), (half, full), 1.5, 1.2, 1.5)
    condition = Readout(
        (50, 100), (reading(0.3, [0.2, 0.4], [1, -1]), reading(0.4, [0.3, 0.5], [1, -1])), 0.6, 0.4, 0.6
    )
    difference = subtract(joint, condition)
    assert difference.mi == pytest.approx(0.9)
    assert difference.floor == pytest.approx(1.2 - 0.6)  # a value minus the extrapolated
    assert difference.ceiling == pytest.approx(1.5 - 0.4)  # the extrapolated minus a value
    assert [point.mi for point in difference.learning_curve] == pytest.approx([0.7, 0.8])
    assert difference.reading.standard_error < 1e-12  # both errors cancel


def test_ceiling_of_the_joint_mi_is_that_of_the_condition_at_least():
    low, high = reading(0.3, [0.3, 0.3], [1, -1]), reading(0.5, [0.5, 0.5], [1, -1])
    difference = subtract(Readout((9,), (low,), 0.3, 0.3, 0.3), Readout((9,), (high,), 0.7, 0.5, 0.7))
    assert difference.mi == pytest.approx(-0.4)
    assert difference.ceiling == pytest.approx(0.2)


def scores_of(rng, labels, dependence):
    noise = rng.normal(size=len(labels))
    x, y = labels + noise, labels + dependence * noise + rng.normal(size=len(labels))
    return HeldOutBlock(0, np.arange(len(labels)), torch.from_numpy(np.outer(x, y)).float())


def test_p_value_given_labels_is_uniform_under_conditional_independence():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    p_values, unconditional = [], []
    for _ in range(200):
        blocks = [scores_of(rng, labels, 0.0)]
        p_values.append(permutation_p_value(blocks, 39, rng, labels))
        unconditional.append(permutation_p_value(blocks, 39, rng))
    for level in (0.05, 0.5):
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 200))
    assert np.mean(np.array(unconditional) <= 0.05) > 0.5  # a permutation across labels is another test


def test_p_value_given_labels_has_power():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    assert permutation_p_value([scores_of(rng, labels, 2.0)], 99, rng, labels) == 0.01


def test_a_fit_is_named_by_its_findings():
    numbers = np.random.default_rng(0).normal(size=(3, 600))
    variables = tuple(read_variable(column, name) for column, name in zip(numbers, "xyz", strict=True))
    noise = numbers[0] - numbers[0].mean()
    common: Any = (Schedule(max_steps=100), (), {}, np.array_split(np.arange(600), 2), False)

    def evidence(mi, best_step):
        return Evidence(variables, mi, reading(mi, [mi, mi], noise), [best_step], *common)

    difference = evidence(1.0, 0)._replace(cross_checks={"other": 9.0})
    found = find_conditional(difference, evidence(5.0, 0), evidence(4.0, 100))
    by_code = {finding.code: finding.text for finding in found}
    assert by_code.keys() >= {"near_ceiling", "still_rising", "cross_check_higher"}
    assert by_code["still_rising"].startswith("I(x; z): Half of")
    assert by_code["cross_check_higher"] == "other reads 9.000 nats."
    assert not any("trust the higher" in finding.remedy for finding in found)  # of a difference, it may be too high


def test_cross_check_of_zero_is_not_higher():
    variables = tuple(read_variable(np.random.default_rng(i).normal(size=600), name) for i, name in enumerate("xyz"))
    common: Any = (Schedule(max_steps=100), (), {"other": 0.0}, np.array_split(np.arange(600), 2), False)
    below = Evidence(variables, -0.1, reading(-0.1, [-0.1, -0.1], np.zeros(600)), [0], *common)
    codes = [finding.code for finding in find_conditional(below, below, below)]
    assert "cross_check_higher" not in codes
    assert "negative_difference" in codes  # I(x; y, z) is never below I(x; z)


def test_lengths_of_the_condition_are_checked():
    with pytest.raises(EstimateInputError, match="60 samples of x and 70 of z"):
        estimate(np.arange(60.0), np.arange(60.0), conditional_on=np.arange(70.0))


def test_condition_that_determines_y_has_no_copula():
    x, y = (read_variable(np.random.default_rng(seed).normal(size=80), name) for seed, name in enumerate("xy"))
    assert conditional_cross_checks(x, y, y) == {}
    assert "gaussian_copula" not in cross_checks(x, read_variable(np.zeros(80), "y", discrete=False))
