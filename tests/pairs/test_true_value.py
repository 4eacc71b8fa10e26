"""The true value of each pairing against NumPy sums over all pairs of small discrete laws."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_mi import bounds
from lightning_mi.critics import AbstractCritic, LabelCritic
from lightning_mi.data import GaussianDataModule, OneHotDataModule
from lightning_mi.pairs import (
    AbstractPairing,
    AllPairs,
    Derangement,
    EnumeratedLabels,
    IndependentMarginal,
    SameLabel,
    TwoViews,
)

DV, INFONCE = bounds.DV(), bounds.InfoNCE()
COUNTS = [6, 3, 1]
LAW = np.array(COUNTS) / 10
NOISY = np.array([[0.5, 0.02, 0.02], [0.05, 0.2, 0.0], [0.05, 0.08, 0.08]])  # p(x, label)


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q), nats."""
    support = p > 0
    return float((p[support] * np.log(p[support] / q[support])).sum())


def information(joint: np.ndarray) -> float:
    return divergence(joint, np.outer(joint.sum(1), joint.sum(0)))


def by_rows(joint: np.ndarray, candidates: np.ndarray) -> float:
    """The value normalized by rows: the mean over x of KL(p(y | x) || q(y))."""
    return divergence(joint, np.outer(joint.sum(1), candidates))


def declared(mi: float | None = None, counts: list[int] | None = None, exchangeable: bool = False) -> SimpleNamespace:
    """A data module with these declarations."""
    data = SimpleNamespace(true_mi=lambda: mi, exchangeable=exchangeable)
    if counts is not None:
        data.class_counts = lambda split=None: torch.tensor(counts)
    return data


def entropy(law: np.ndarray) -> float:
    return -float((law * np.log(law)).sum())


@pytest.mark.parametrize("pairing", [AllPairs(), Derangement(), IndependentMarginal()], ids=str)
def test_pairs_of_views_estimate_the_declared_information(pairing: AbstractPairing) -> None:
    assert pairing.true_value(declared(1.5), DV) == pairing.max_value(declared(1.5), DV) == 1.5
    for unknown in (None, object(), declared(None)):
        assert pairing.true_value(unknown, DV) is None
        assert pairing.max_value(unknown, DV) == math.inf


# SameLabel: x are symbols, two of the first class and one of each other.

OF_SYMBOL = np.array([[0.7, 0.3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # p(x | class)


def same_label_pairs(law: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p(x, x') of two independent samples with the same label, and p(x)."""
    joint = sum(law[c] ** 2 * np.outer(OF_SYMBOL[c], OF_SYMBOL[c]) for c in range(3))
    return joint / joint.sum(), law @ OF_SYMBOL


@pytest.mark.parametrize("counts", [COUNTS, [5, 5, 5], [98, 1, 1]])
def test_same_label_pairs_estimate_a_divergence(counts: list[int]) -> None:
    law = np.array(counts) / sum(counts)
    joint, single = same_label_pairs(law)
    data = declared(entropy(law), counts)
    assert SameLabel().true_value(data, DV) == pytest.approx(divergence(joint, np.outer(single, single)), abs=1e-12)
    assert SameLabel().true_value(data, INFONCE) == pytest.approx(by_rows(joint, single), abs=1e-12)


class SameClass(AbstractCritic):
    """Score 0 for samples of one class, whose x are equal, and -1000 for others."""

    def paired(self, x, y):
        raise NotImplementedError

    def pairwise(self, x, y):
        return torch.where(x == y.T, 0.0, -1000.0).double()


def test_perfect_critic_reaches_the_maximum_of_same_label_pairs() -> None:
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    limit = SameLabel().max_value(declared(counts=COUNTS), DV)
    assert DV(SameLabel()(SameClass(), labels[:, None], labels)).value.item() == pytest.approx(limit, abs=1e-12)
    pairs_of_classes = np.outer(COUNTS, COUNTS) - np.diag(COUNTS)
    assert limit == pytest.approx(-math.log(np.trace(pairs_of_classes) / pairs_of_classes.sum()), abs=1e-12)


@pytest.mark.parametrize(
    ("pairing", "data"),
    [
        (SameLabel(exclude_same_label=True), declared(entropy(LAW), COUNTS)),
        (SameLabel(), declared(entropy(LAW) - 0.1, COUNTS)),  # x does not determine its label
        (SameLabel(), declared(entropy(LAW))),  # without counts
        (SameLabel(), declared(None, COUNTS)),
    ],
)
def test_same_label_pairs_without_a_known_true_value(pairing: SameLabel, data: object) -> None:
    assert pairing.true_value(data, DV) is None


def test_excluded_same_label_pairs_have_no_maximum() -> None:
    assert SameLabel(exclude_same_label=True).max_value(declared(entropy(LAW), COUNTS), DV) == math.inf


def enumerated(joint: np.ndarray, prior) -> tuple[EnumeratedLabels, torch.Tensor, torch.Tensor]:
    """The pairing after a batch with 100 p(x, label) samples of each pair; their x and labels."""
    counts = np.rint(100 * joint).astype(int)
    x, y = np.indices(joint.shape).reshape(2, -1).repeat(counts.ravel(), axis=1)
    pairing = EnumeratedLabels(joint.shape[1], prior)
    labels = torch.tensor(y)
    pairing(LabelCritic(), torch.zeros(len(y), joint.shape[1]), labels)
    return pairing, torch.tensor(x), labels


@pytest.mark.parametrize("prior", [None, "uniform", [0.6, 0.1, 0.3]], ids=str)
@pytest.mark.parametrize("joint", [NOISY, np.diag(LAW)], ids=["noisy", "certain"])
def test_enumerated_labels_estimate_information_plus_divergence_of_the_prior(joint: np.ndarray, prior) -> None:
    law = joint.sum(0)
    candidates = {"None": law, "uniform": np.full(3, 1 / 3)}.get(str(prior), prior)
    pairing, x, labels = enumerated(joint, prior)
    data = declared(information(joint), np.rint(100 * law).astype(int).tolist())
    expected = by_rows(joint, np.asarray(candidates))
    assert pairing.true_value(data, DV) == pytest.approx(expected, abs=1e-9)
    assert pairing.max_value(data, DV) == pytest.approx(-(law * np.log(candidates)).sum(), abs=1e-9)
    # The critic log p(y | x) / q(y) gives it, so no other gives more.
    with np.errstate(divide="ignore"):
        optimal = np.maximum(np.log(joint / joint.sum(1, keepdims=True) / np.asarray(candidates)), -1000)
    scores = pairing(LabelCritic(), torch.tensor(optimal)[x], labels)
    for bound in (DV, INFONCE, bounds.JS()):
        assert bound(scores).value.item() == pytest.approx(expected, abs=1e-9)


def test_enumerated_labels_without_declared_counts_use_their_counts() -> None:
    pairing, _, _ = enumerated(NOISY, None)
    assert pairing.true_value(declared(0.4), DV) == 0.4
    assert EnumeratedLabels(3).true_value(declared(0.4), DV) is None  # nothing is counted yet
    assert EnumeratedLabels(3, "uniform").true_value(declared(0.4), DV) is None


def two_views(joint: np.ndarray) -> float:
    """The value of TwoViews at the optimum: both orders of a joint pair, against the mixture of both marginals."""
    size = sum(joint.shape)
    both = np.zeros((size, size))  # x and y among all symbols, x first
    rows = slice(joint.shape[0])
    columns = slice(joint.shape[0], size)
    both[rows, columns] = joint
    return information((both + both.T) / 2)


def test_two_views_estimate_the_information_of_exchangeable_views() -> None:
    symmetric, cyclic = np.array([[0.4, 0.1], [0.1, 0.4]]), np.roll(np.eye(3), 1, axis=1) / 3
    assert information((symmetric + symmetric.T) / 2) == pytest.approx(information(symmetric))
    assert information((cyclic + cyclic.T) / 2) < information(cyclic) - 0.5  # p(x) = p(y), p(x, y) != p(y, x)
    assert two_views(NOISY) == pytest.approx(information(NOISY) + math.log(2))  # x can be distinguished from y
    assert TwoViews().true_value(declared(1.0, exchangeable=True), DV) == 1.0
    assert TwoViews().true_value(declared(1.0), DV) is None
    assert TwoViews().max_value(declared(1.0), DV) == math.inf


@pytest.mark.parametrize(
    ("data", "exchangeable"),
    [
        (GaussianDataModule(), True),
        (GaussianDataModule(mi=[2, 4]), True),
        (GaussianDataModule(transform="cubic"), False),
        (OneHotDataModule(independent_marginal=False), True),
    ],
)
def test_data_modules_declare_whether_views_are_exchangeable(data, exchangeable: bool) -> None:
    assert data.exchangeable == exchangeable
    assert TwoViews().true_value(data, DV) == (data.true_mi() if exchangeable else None)
