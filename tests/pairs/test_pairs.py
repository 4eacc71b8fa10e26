"""Pairings against loops over pairs."""

import pytest
import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic, BilinearCritic
from lightning_mi.pairs import AbstractPairing, AllPairs, Derangement, IndependentMarginal


class Positions(AbstractCritic):
    """T(x, y) = 100 x + y: a score that says which rows were paired."""

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        return (100 * x + y)[:, 0]

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        return 100 * x + y.T


def positions(n: int, start: int = 0) -> Tensor:
    return torch.arange(start, start + n, dtype=torch.float64)[:, None]


def pairs_of(values: Tensor) -> list[tuple[int, int]]:
    return [divmod(int(value), 100) for value in values]


@pytest.mark.parametrize("n", [2, 3, 8])
def test_all_pairs_are_the_diagonal_and_all_the_rest(n: int) -> None:
    scores = AllPairs()(Positions(), positions(n), positions(n))
    assert pairs_of(scores.joint) == [(i, i) for i in range(n)]
    assert pairs_of(scores.marginal_values()) == [(i, j) for i in range(n) for j in range(n) if i != j]
    assert scores.num_candidates == n


def test_all_pairs_of_a_row_share_its_x() -> None:
    x, y = torch.randn(5, 3).double(), torch.randn(5, 4).double()
    critic = BilinearCritic(3, 4).double()
    scores = AllPairs()(critic, x, y)
    for i, observed in enumerate(scores.row_log_mean_exp()):
        row = torch.stack([critic.paired(x[[i]], y[[j]])[0] for j in range(5)])
        torch.testing.assert_close(observed, row.exp().mean().log())
    assert torch.equal(scores.joint_rows, torch.arange(5))


@pytest.mark.parametrize("n", range(2, 10))
def test_derangement_has_no_fixed_points_and_uses_every_sample_once(n: int) -> None:
    for _ in range(200):
        scores = Derangement()(Positions(), positions(n), positions(n))
        assert pairs_of(scores.joint) == [(i, i) for i in range(n)]
        x, y = zip(*pairs_of(scores.marginal_values()), strict=True)
        assert x == tuple(range(n))
        assert sorted(y) == list(range(n))
        assert all(i != j for i, j in zip(x, y, strict=True))


def test_derangement_draws_every_other_sample_equally_often() -> None:
    draws = 4000
    counts = torch.zeros(5, 5)
    for _ in range(draws):
        for i, j in pairs_of(Derangement()(Positions(), positions(5), positions(5)).marginal_values()):
            counts[i, j] += 1
    frequencies = counts[~torch.eye(5, dtype=torch.bool)] / draws
    # A frequency near 1/4; the largest of 20 deviations stays below 4 standard errors.
    assert (frequencies - 0.25).abs().max() < 4 * (0.25 * 0.75 / draws) ** 0.5


def test_derangement_follows_the_seed() -> None:
    def shuffle() -> list[tuple[int, int]]:
        return pairs_of(Derangement()(Positions(), positions(9), positions(9)).marginal_values())

    torch.manual_seed(1)
    first = shuffle()
    assert shuffle() != first
    torch.manual_seed(1)
    assert shuffle() == first


@pytest.mark.parametrize(("n", "k"), [(4, 4), (2, 5), (5, 1), (1, 3)])
def test_independent_marginal_pairs_are_those_of_the_batch(n: int, k: int) -> None:
    views = positions(n), positions(n), positions(k, start=20), positions(k, start=30)
    scores = IndependentMarginal()(Positions(), *views)
    assert pairs_of(scores.joint) == [(i, i) for i in range(n)]
    assert pairs_of(scores.marginal_values()) == [(20 + i, 30 + i) for i in range(k)]


@pytest.mark.parametrize("pairing", [AllPairs(), Derangement(), IndependentMarginal()], ids=repr)
def test_candidates_that_come_along_are_those_that_were_scored(pairing: AbstractPairing) -> None:
    """An offset that is minus the score of (0, y) leaves 100 x, whichever way the pairs were made."""
    views = (positions(6), positions(6))
    if isinstance(pairing, IndependentMarginal):
        views += (positions(4, start=20), positions(4, start=30))
    scores = pairing(Positions(), *views)
    y = scores.y[:, 0]
    x, candidates = zip(*pairs_of(scores.joint), strict=True)
    assert y[scores.joint_columns].tolist() == list(candidates)
    marginal_x = torch.tensor([x for x, _ in pairs_of(scores.marginal_values())], dtype=torch.float64)
    observed = scores.log_mean_exp(offset=y)
    torch.testing.assert_close(observed, (100 * marginal_x).logsumexp(0) - torch.tensor(len(marginal_x)).double().log())
    assert x == tuple(range(6))


@pytest.mark.parametrize("pairing", [Derangement(), IndependentMarginal()], ids=repr)
def test_pairings_without_rows_say_so(pairing: AbstractPairing) -> None:
    views = [positions(3)] * (4 if isinstance(pairing, IndependentMarginal) else 2)
    assert pairing(Positions(), *views).num_candidates is None


@pytest.mark.parametrize("pairing", [AllPairs(), Derangement()], ids=repr)
@pytest.mark.parametrize("n", [0, 1])
def test_batch_of_one_has_no_marginal_pairs(pairing: AbstractPairing, n: int) -> None:
    with pytest.raises(ValueError, match=f"Got a batch of {n}: .*drop_last=True"):
        pairing(Positions(), positions(n), positions(n))


@pytest.mark.parametrize("pairing", [AllPairs(), Derangement(), IndependentMarginal()], ids=repr)
def test_views_of_different_length_are_an_error(pairing: AbstractPairing) -> None:
    rest = [positions(3)] * 2 if isinstance(pairing, IndependentMarginal) else []
    with pytest.raises(ValueError, match="Got 4 x and 3 y: row i of both is one joint pair"):
        pairing(Positions(), positions(4), positions(3), *rest)


def test_marginal_views_of_different_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="Got 4 marginal x and 3 marginal y"):
        IndependentMarginal()(Positions(), positions(2), positions(2), positions(4), positions(3))


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [(AllPairs(), "2, x, y"), (Derangement(), "2, x, y"), (IndependentMarginal(), "4, x, y, x_marginal, y_marginal")],
    ids=["AllPairs", "Derangement", "IndependentMarginal"],
)
@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_wrong_number_of_views_is_an_error(pairing: AbstractPairing, expected: str, count: int) -> None:
    name = type(pairing).__name__
    with pytest.raises(ValueError, match=f"Got {count} views? of the batch: {name} takes {expected}. Choose another"):
        pairing(Positions(), *[positions(3)] * count)


def test_abstract_pairing_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        AbstractPairing()
