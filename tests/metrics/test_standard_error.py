import numpy as np
import pytest
import torch

from lightning_mi import Scores, bounds
from lightning_mi.metrics import functional

NUM_BATCHES, REPLICATES = 40, 2000


class Draws:
    """Independent draws of batches of uneven size; joint and marginal scores of a batch share a random shift.

    Arrays are (draws, batches, pairs); the ``keep`` masks select the pairs of a batch.
    """

    def __init__(self, seed, draws=1):
        rng = np.random.default_rng(seed)
        shift = rng.normal(0, 0.5, (draws, NUM_BATCHES, 1))
        self.joint = shift + rng.normal(1, 1, (draws, NUM_BATCHES, 12))
        self.marginal = shift + rng.normal(-0.5, 0.7, (draws, NUM_BATCHES, 40))
        self.keep_joint = np.arange(12) < rng.integers(4, 13, (draws, NUM_BATCHES, 1))
        self.keep_marginal = np.arange(40) < rng.integers(10, 41, (draws, NUM_BATCHES, 1))

    def terms(self, axes):
        """E_P[T] and E_Q[e^T] over the pairs of all given axes."""
        joint = self.joint.mean(axis=axes, where=self.keep_joint)
        return joint, np.exp(self.marginal).mean(axis=axes, where=self.keep_marginal)

    def estimates(self, name, average):
        """(draws,) by the definition of each average."""
        if average == "macro":
            return READ[name](*self.terms(2)).mean(axis=1)
        joint, z = self.terms((1, 2))
        return joint if average == "plug-in" else READ[name](joint, z)

    def batches(self, draw=0):
        return [
            Scores.from_samples(torch.tensor(joint[keep_joint]), torch.tensor(marginal[keep_marginal]))
            for joint, marginal, keep_joint, keep_marginal in zip(
                self.joint[draw],
                self.marginal[draw],
                self.keep_joint[draw],
                self.keep_marginal[draw],
                strict=True,
            )
        ]


READ = {"DV": lambda joint, z: joint - np.log(z), "JS": lambda joint, z: 1 + joint - z}
every_average = pytest.mark.parametrize("average", ["micro", "macro", "plug-in"])
every_bound = pytest.mark.parametrize("bound", [bounds.DV(), bounds.JS()], ids=READ)


@pytest.fixture(scope="module")
def simulated():
    return Draws(seed=0, draws=REPLICATES)


@every_average
@every_bound
def test_standard_error_is_the_spread_over_new_draws(bound, average, simulated):
    expected = simulated.estimates(type(bound).__name__, average).std(ddof=1)
    draws = Draws(seed=1, draws=25)
    errors = [
        functional.mutual_information(bound, draws.batches(i), average=average).standard_error.item() for i in range(25)
    ]
    assert np.mean(errors) == pytest.approx(expected, rel=0.15)


def test_shared_shift_cancels_in_dv(simulated):
    # Guards the simulation: adding joint and marginal influences as if independent would fail the test above for DV.
    assert simulated.estimates("DV", "micro").std() < 0.8 * simulated.estimates("DV", "plug-in").std()


@every_average
@every_bound
def test_standard_error_equals_the_formula_in_numpy(bound, average):
    draws = Draws(seed=2)
    num_joint, num_marginal = draws.keep_joint[0].sum(1), draws.keep_marginal[0].sum(1)
    a, z = (term[0] for term in draws.terms(2))
    if average == "macro":
        influence = READ[type(bound).__name__](a, z)
        influence = (influence - influence.mean()) / NUM_BATCHES
    else:
        influence = num_joint / num_joint.sum() * (a - np.average(a, weights=num_joint))
        if average == "micro":
            mean = np.average(z, weights=num_marginal)
            scale = mean if isinstance(bound, bounds.DV) else 1.0
            influence = influence - num_marginal / num_marginal.sum() * (z - mean) / scale
    expected = np.sqrt(NUM_BATCHES / (NUM_BATCHES - 1) * np.sum(influence**2))
    actual = functional.mutual_information(bound, draws.batches(), average=average).standard_error
    assert actual.item() == pytest.approx(expected, rel=1e-9)


@every_average
def test_single_batch_has_no_standard_error(average):
    # Each batch: rounding leaves no exact zero in some, and dividing it by 0 degrees of freedom would be infinite.
    for scores in Draws(seed=0).batches():
        result = functional.mutual_information(bounds.DV(), [scores], average=average)
        assert result.value.isfinite()
        assert result.standard_error.isnan()


@every_average
def test_equal_batches_have_a_standard_error_of_zero(average):
    result = functional.mutual_information(bounds.DV(), Draws(seed=0).batches()[:1] * 7, average=average)
    assert result.standard_error.item() == pytest.approx(0, abs=1e-7)


@every_average
def test_large_offset_does_not_change_the_standard_error(average):
    # In float32 its squares would lose all digits.
    draws = Draws(seed=3)
    expected = functional.mutual_information(bounds.DV(), draws.batches(), average=average).standard_error
    draws.joint += 1e4
    draws.marginal += 1e4
    actual = functional.mutual_information(bounds.DV(), draws.batches(), average=average).standard_error
    assert actual.item() == pytest.approx(expected.item(), rel=1e-4)
