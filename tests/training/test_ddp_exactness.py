"""Gradients, terms and states of several ranks equal those of one process."""

import pytest
import torch

from benchmarks import distributed_exactness as script
from lightning_mi import bounds, pairs, regularizers

# Python 3.12 and later warn of every fork of a process with threads; gloo on one thread forks well.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::lightning_mi.exceptions.MINumericalWarning"),
]

UNEVEN = [(8, 5), (8, 0)]


def check(results, tolerance):
    for result in results:
        assert result.error <= tolerance, result
        assert result.parameter_error <= 1e3 * tolerance, result
        assert result.loss_error <= tolerance, result
        assert result.equal, f"ranks differ: {result}"


@pytest.mark.parametrize(
    ("package", "listed"), [(bounds, "BOUNDS"), (pairs, "PAIRINGS"), (regularizers, "REGULARIZERS")]
)
def test_every_bound_pairing_and_regularizer_is_compared(package, listed):
    kinds = {name.split("(")[0] for name in getattr(script, listed)} - {"none"}
    base = {
        "BOUNDS": bounds.AbstractBound,
        "PAIRINGS": pairs.AbstractPairing,
        "REGULARIZERS": regularizers.AbstractRegularizer,
    }[listed]
    found = {name for name, kind in vars(package).items() if isinstance(kind, type) and issubclass(kind, base)}
    assert kinds == found - {base.__name__}


def test_two_ranks_give_the_gradient_of_one():
    chosen = script.cases(regularizer_names=["Squared(log)"])
    assert len(chosen) > 100
    check(script.run(chosen, (6, 6), torch.float64), 1e-12)


@pytest.mark.parametrize("shares", UNEVEN, ids=str)
def test_two_uneven_ranks_give_the_gradient_of_one(shares):
    chosen = script.cases(["DV", "MINE", "InfoNCE", "TUBA(learned)", "JS"], regularizer_names=["Huber(linear)"])
    check(script.run(chosen, shares, torch.float64), 1e-12)


def test_pairs_within_ranks_have_another_gradient():
    """Pairs within each rank have another gradient: the tolerances above can fail."""
    chosen = script.cases(["DV", "InfoNCE", "NWJ"], ["AllPairs", "SameLabel", "TwoViews"], ["none"])

    class Local(script.MIEstimationModule):
        def step(self, batch):
            self.pairs.gather = False
            return super().step(batch)

    original, script.MIEstimationModule = script.MIEstimationModule, Local
    try:
        results = script.run(chosen, (6, 6), torch.float64)
    finally:
        script.MIEstimationModule = original
    assert all(result.error > 1e-3 and result.loss_error > 1e-3 and not result.equal for result in results)


@pytest.mark.slow
@pytest.mark.parametrize("shares", script.SHARES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_any_number_of_ranks_gives_the_gradient_of_one(shares, dtype, tolerance):
    results = script.run(script.cases(), shares, dtype)
    if dtype == torch.float64:
        check(results, tolerance)
    else:
        assert all(result.equal and result.error <= tolerance for result in results)
