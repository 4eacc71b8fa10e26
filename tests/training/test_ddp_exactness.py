"""Gradients, terms and states of several ranks equal those of one process."""

import pytest
import torch

from lightning_mi import MIEstimationModule, bounds, critics, pairs, regularizers
from tests.helpers import critic_specs, specs
from tests.helpers import ddp_exactness as exactness

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
    ("package", "base", "made"),
    [
        (bounds, bounds.AbstractBound, [spec.make() for spec in specs.BOUNDS]),
        # The candidates of LabelCritic are labels; tests/critics/test_critics.py compares it with a loop.
        (critics, critics.AbstractCritic, [critics.LabelCritic(), *(spec.make(4) for spec in critic_specs.CRITICS)]),
        # test_shuffled_pairs.py compares the first two with definitions and over ranks: their pairs are random. The
        # next three have weights, or are in both directions: tests/losses and test_two_towers.py. The views of the last
        # three are not (N, D), or they have a state: test_rows_over_ranks.py.
        (
            pairs,
            pairs.AbstractPairing,
            [
                *(spec.make() for spec in specs.PAIRINGS),
                *(pairs.TotalCorrelation(), pairs.WithinLabel()),
                *(pairs.TwoTowers(), pairs.SameId(), pairs.OverlappingLabels()),
                *(pairs.LocalGlobal(), pairs.TimeSteps(), pairs.Queue(pairs.AllPairs(), 4, 4)),
            ],
        ),
        (regularizers, regularizers.AbstractRegularizer, [spec.make(weight=1.0) for spec in specs.REGULARIZERS]),
    ],
    ids=["bounds", "critics", "pairs", "regularizers"],
)
def test_every_part_has_a_spec(package, base, made):
    public = {kind for kind in vars(package).values() if isinstance(kind, type) and issubclass(kind, base)}
    public = {kind for kind in public if not kind.__name__.startswith("Abstract")}
    missing = sorted(kind.__name__ for kind in public - {type(part) for part in made})
    assert not missing, f"{', '.join(missing)}: add a line to the spec list in tests/helpers/specs.py"


def test_two_ranks_give_the_gradient_of_one():
    every_bound = exactness.cases(pairing_names=["AllPairs", "SameLabel"], regularizer_names=["Squared-log"])
    # One mean, two means, a learned baseline.
    every_pairing = exactness.cases(["InfoNCE", "DV", "TUBA(learned)"], regularizer_names=["Squared-log"])
    check(exactness.run(list(dict.fromkeys(every_bound + every_pairing)), (6, 6), torch.float64), 1e-12)


@pytest.mark.parametrize("shards", UNEVEN, ids=str)
def test_two_uneven_ranks_give_the_gradient_of_one(shards):
    names = ["DV", "MINE", "InfoNCE", "TUBA(learned)", "JS", "NCE", "RPC", "Hellinger", "DCL"]
    every_bound = exactness.cases(names, ["AllPairs", "SameLabel"], ["Huber-linear"])
    every_pairing = exactness.cases(["InfoNCE", "DV", "TUBA(learned)"], regularizer_names=["Huber-linear"])
    check(exactness.run(list(dict.fromkeys(every_bound + every_pairing)), shards, torch.float64), 1e-12)


def test_pairs_within_ranks_have_another_gradient(monkeypatch):
    """Pairs within each rank have another gradient: the tolerances above can fail."""
    chosen = exactness.cases(["DV", "InfoNCE", "NWJ"], ["AllPairs", "SameLabel", "TwoViews"], ["none"])

    class Local(MIEstimationModule):
        def step(self, batch):
            self.pairs.gather = False
            return super().step(batch)

    monkeypatch.setattr(exactness, "MIEstimationModule", Local)
    results = exactness.run(chosen, (6, 6), torch.float64)
    assert all(result.error > 1e-3 and result.loss_error > 1e-3 and not result.equal for result in results)


@pytest.mark.slow
def test_any_number_of_ranks_gives_the_gradient_of_one():
    """Every case on every number of ranks; ``pytest -m slow -s`` prints the tables of docs/reliability.md."""
    cases = exactness.cases()
    double, single = (
        [result for shards in exactness.SHARDS for result in exactness.run(cases, shards, dtype)]
        for dtype in (torch.float64, torch.float32)
    )
    print(f"\n{exactness.tables(double, single)}\n\n{len(double) + len(single)} comparisons")
    check(double, 1e-12)
    assert all(result.equal and result.error <= 1e-5 for result in single)
