"""Adjusted p-values against their definitions."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from lightning_mi.estimation.multiple_tests import LEVEL, adjust_p_values, default_permutations

P_VALUES = np.random.default_rng(0).random(9) ** 3


def test_holm_rejects_what_the_step_down_procedure_rejects():
    adjusted = adjust_p_values(P_VALUES, "holm")
    for level in np.linspace(0.01, 0.99, 50):
        rejected, order = np.zeros(9, dtype=bool), np.argsort(P_VALUES)
        for i, index in enumerate(order):
            if P_VALUES[index] > level / (9 - i):
                break
            rejected[index] = True
        np.testing.assert_array_equal(adjusted <= level, rejected)


def test_fdr_is_benjamini_hochberg():
    np.testing.assert_array_equal(adjust_p_values(P_VALUES, "fdr"), false_discovery_control(P_VALUES, method="bh"))


def test_one_test_is_not_adjusted():
    for adjustment in ("holm", "fdr"):
        assert adjust_p_values(np.array([0.03]), adjustment).tolist() == [0.03]


@pytest.mark.parametrize("num_tests", [1, 10, 26, 1000])
def test_default_permutations_allow_a_significant_pair(num_tests):
    smallest = 1 / (1 + default_permutations(num_tests))
    p_values = np.array([smallest] + [1.0] * (num_tests - 1))
    for adjustment in ("holm", "fdr"):
        assert adjust_p_values(p_values, adjustment)[0] <= LEVEL / 2
