"""p-values of several tests, adjusted for their number."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Adjustment = Literal["holm", "fdr"]
LEVEL = 0.05  # at which an adjusted p-value is called significant
_MIN_PERMUTATIONS = 999
_PERMUTATIONS_PER_TEST = 40  # the smallest adjusted p-value is 1 / 40, half of LEVEL


def adjust_p_values(p_values: NDArray[np.float64], adjustment: Adjustment) -> NDArray[np.float64]:
    """Adjusted p-values: below a level, the error rate of all tests together is below it.

    Args:
        p_values: (m,).
        adjustment: ``"holm"`` bounds the probability of any false discovery, for tests that depend on each other in any
            way. ``"fdr"`` bounds the expected fraction of false discoveries, for independent or positively dependent
            tests.

    Source: Holm 1979; Benjamini and Hochberg 1995.

    Example:
        >>> adjust_p_values(np.array([0.02, 0.01, 0.5]), "holm")
        array([0.04, 0.03, 0.5 ])
        >>> adjust_p_values(np.array([0.02, 0.01, 0.5]), "fdr")
        array([0.03, 0.03, 0.5 ])
    """
    if adjustment == "fdr":
        from scipy.stats import false_discovery_control  # half a second

        by_step_up: NDArray[np.float64] = false_discovery_control(p_values)
        return by_step_up
    order, m = np.argsort(p_values), len(p_values)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(m, 0, -1)), 1)
    return adjusted


def default_permutations(num_tests: int) -> int:
    """Permutations of each test, so that the smallest adjusted p-value is at most 0.025.

    Example:
        >>> default_permutations(3), default_permutations(100)
        (999, 3999)
    """
    return max(_MIN_PERMUTATIONS, _PERMUTATIONS_PER_TEST * num_tests - 1)
