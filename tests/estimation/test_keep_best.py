"""Critics are kept at their best step, or as before training if the gain is within its error."""

import numpy as np
import pytest

from lightning_mi.estimation.held_out import Reading
from lightning_mi.estimation.keep_best import Moment, _gains


def moment(step, value, influence):
    folds = np.array([value])
    return Moment(step, Reading(value, folds, influence, influence, folds), {})


@pytest.mark.parametrize(("gain", "kept"), [(0.04, False), (0.06, True)])
def test_gain_must_exceed_half_its_standard_error(gain, kept):
    influence = np.tile([1.0, -1.0], 50)  # standard error 0.1
    assert _gains(moment(0, 0.0, np.zeros(100)), moment(50, gain, influence)) is kept
