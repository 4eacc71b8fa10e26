"""Every pairing: its declarations, its inputs, and the pairs that it makes."""

import itertools

import pytest
import torch
from torch import Tensor

from lightning_mi.critics import BilinearCritic
from lightning_mi.pairs import AllPairs, Derangement, IndependentMarginal
from tests.helpers.pairs_by_definition import Positions, decode
from tests.helpers.specs import PAIRINGS, PairingSpec, by_name

every_pairing = pytest.mark.parametrize("spec", PAIRINGS, ids=by_name)


def positions(n: int, start: int = 0) -> Tensor:
    return torch.arange(start, start + n, dtype=torch.float64)[:, None]


# All pairings.


@every_pairing
def test_class_attributes_declare_the_inputs(spec: PairingSpec) -> None:
    pairing = spec.make()
    assert pairing.takes_labels == spec.takes_labels
    assert pairing.num_views == len(spec.inputs.split(", ")) - spec.takes_labels


@every_pairing
def test_wrong_number_of_inputs_is_an_error(spec: PairingSpec) -> None:
    views = spec.views(3)
    name, count = spec.name, len(views)
    for wrong in (views[:0], views[:1], views[:-1], [*views, views[0]]):
        message = rf"Got {len(wrong)} views? of the batch: {name} takes {count}, {spec.inputs}\. Choose another"
        with pytest.raises(ValueError, match=message):
            spec.make()(Positions(), *wrong)


@every_pairing
def test_training_needs_two_samples_but_evaluation_does_not(spec: PairingSpec) -> None:
    if spec.needs_two:
        with pytest.raises(ValueError, match=r"Got a batch of 1: .*drop_last=True"):
            spec.make()(Positions(), *spec.views(1))
        assert spec.make().eval()(Positions(), *spec.views(1)).num_marginal == 0


@every_pairing
def test_empty_batch_is_an_error(spec: PairingSpec) -> None:
    pairing = spec.make()
    pairing(Positions(), *spec.views(3))  # EnumeratedLabels evaluates with the frequencies of training labels
    for training in (True, False):
        with pytest.raises(ValueError, match=r"Got an empty batch: .*Skip empty batches"):
            pairing.train(training)(Positions(), *spec.views(0))


@every_pairing
def test_pairs_equal_the_definition(spec: PairingSpec) -> None:
    pairing = spec.make()
    for training, n in itertools.product((True, False), (2, 3, 5)):
        expected, drawn = spec.pairs_of(n), set()
        for _ in range(1 if expected.num_drawn is None else 60):
            scores = pairing.train(training)(Positions(), *spec.views(n))
            marginal = decode(scores.marginal_values())
            assert decode(scores.joint) == expected.joint
            assert scores.num_marginal == len(marginal) == len(set(marginal))
            assert len(marginal) == (expected.num_drawn or len(expected.marginal))
            drawn |= set(marginal)
        assert drawn == expected.marginal


@every_pairing
def test_only_pairings_that_score_all_pairs_have_rows(spec: PairingSpec) -> None:
    scores = spec.make()(Positions(), *spec.views(4))
    assert scores.has_rows == spec.has_rows
    assert spec.has_rows or scores.num_candidates is None


@pytest.mark.parametrize("spec", [spec for spec in PAIRINGS if not spec.takes_labels], ids=by_name)
def test_views_of_different_lengths_are_an_error(spec: PairingSpec) -> None:
    x, y, *rest = spec.views(4)
    with pytest.raises(ValueError, match="Got 4 x and 3 y: row i of both is one joint pair"):
        spec.make()(Positions(), x, y[:3], *rest)
    if rest:
        with pytest.raises(ValueError, match="Got 4 marginal x and 3 marginal y"):
            spec.make()(Positions(), x, y, rest[0], rest[1][:3])


@every_pairing
def test_candidates_are_the_scored_ones(spec: PairingSpec) -> None:
    """An offset that is minus the score of (0, y) leaves 100 x."""
    scores = spec.make()(Positions(), *spec.views(4))
    y = scores.y.reshape(-1).double()
    _, candidates = zip(*decode(scores.joint), strict=True)
    assert y[scores.joint_columns].tolist() == list(candidates)
    marginal_x = torch.tensor([x for x, _ in decode(scores.marginal_values())], dtype=torch.float64)
    expected = (100 * marginal_x).logsumexp(0) - torch.tensor(float(len(marginal_x))).double().log()
    torch.testing.assert_close(scores.log_mean_exp(offset=y), expected)


# One pairing each.


def test_rows_of_all_pairs_share_their_x() -> None:
    x, y = torch.randn(5, 3).double(), torch.randn(5, 4).double()
    critic = BilinearCritic(3, 4).double()
    scores = AllPairs()(critic, x, y)
    for i, observed in enumerate(scores.row_log_mean_exp()):
        row = torch.stack([critic.paired(x[[i]], y[[j]])[0] for j in range(5)])
        torch.testing.assert_close(observed, row.exp().mean().log())
    assert torch.equal(scores.joint_rows, torch.arange(5))
    assert scores.num_candidates == 5


@pytest.mark.parametrize("n", [4, 9])
def test_derangement_is_a_permutation_without_fixed_points(n: int) -> None:
    for _ in range(200):
        scores = Derangement()(Positions(), positions(n), positions(n))
        assert decode(scores.joint) == [(i, i) for i in range(n)]
        x, y = zip(*decode(scores.marginal_values()), strict=True)
        assert x == tuple(range(n))
        assert sorted(y) == list(range(n))
        assert all(i != j for i, j in zip(x, y, strict=True))


def test_derangement_draws_all_other_samples_equally_often() -> None:
    draws = 4000
    counts = torch.zeros(5, 5)
    for _ in range(draws):
        for i, j in decode(Derangement()(Positions(), positions(5), positions(5)).marginal_values()):
            counts[i, j] += 1
    frequencies = counts[~torch.eye(5, dtype=torch.bool)] / draws
    # A frequency near 1/4; the largest of 20 deviations stays below 4 standard errors.
    assert (frequencies - 0.25).abs().max() < 4 * (0.25 * 0.75 / draws) ** 0.5


def test_derangement_depends_on_the_seed_only() -> None:
    def shuffle() -> list[tuple[int, int]]:
        return decode(Derangement()(Positions(), positions(9), positions(9)).marginal_values())

    torch.manual_seed(1)
    first = shuffle()
    assert shuffle() != first
    torch.manual_seed(1)
    assert shuffle() == first


@pytest.mark.parametrize(("n", "k"), [(4, 4), (2, 5), (5, 1), (1, 3)])
def test_independent_marginal_uses_the_pairs_of_the_batch(n: int, k: int) -> None:
    views = positions(n), positions(n), positions(k, start=20), positions(k, start=30)
    scores = IndependentMarginal()(Positions(), *views)
    assert decode(scores.joint) == [(i, i) for i in range(n)]
    assert decode(scores.marginal_values()) == [(20 + i, 30 + i) for i in range(k)]


def test_independent_views_of_another_width_or_dtype_are_an_error() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"x of shape \(3, 2\) and x_marginal of shape \(3, 1\)"):
        IndependentMarginal()(Positions(), x, x, x[:, :1], x)
    with pytest.raises(TypeError, match=r"x_marginal of type torch\.float64"):
        IndependentMarginal()(Positions(), x, x, x.double(), x)
