"""The extrapolation of the mutual information of labels ends at their entropy."""

import math

import numpy as np
import pytest
from scipy.stats import entropy

from lightning_mi.estimation.cross_fit import CrossFit
from lightning_mi.estimation.fit import Fitted
from lightning_mi.estimation.folds import MemberSplit
from lightning_mi.estimation.held_out import Reading
from lightning_mi.estimation.inputs import read_variable
from lightning_mi.estimation.readout import read_out
from lightning_mi.estimation.summary import _entropy


def test_extrapolation_ends_at_the_entropy_of_labels():
    def fit(value, num_train):
        split = MemberSplit(0, np.arange(num_train), np.arange(2))
        reading = Reading(value, np.full(2, value), np.array([1e-3, -1e-3]), np.zeros(2), np.full(2, 9.0))
        return CrossFit([], [], reading, Fitted([], [], [], []), [split])

    fits = [fit(0.4, 100), fit(0.6, 400)]
    assert read_out(fits).mi == pytest.approx(0.8)
    limited = read_out(fits, entropy=math.log(2))
    assert (limited.mi, limited.ceiling) == pytest.approx((math.log(2), math.log(2)))
    assert read_out(fits, entropy=0.5).mi == 0.6  # the value itself is a lower bound


def test_entropy_of_labels_is_that_of_scipy():
    labels = np.repeat([0.0, 1.0, 3.0], [50, 30, 20])
    variable = read_variable(labels, "y", discrete=True)
    assert _entropy(variable) == pytest.approx(entropy([0.5, 0.3, 0.2]) + 2 / 200)
    assert _entropy(read_variable(np.arange(100.0), "x")) == math.inf
