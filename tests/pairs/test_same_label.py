"""Pairs of the same label, and of two views: what a perfect critic reads, batches without a joint pair, bad input."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mi import Scores, bounds, regularizers
from lightning_mi.critics import BilinearCritic, InnerProductCritic
from lightning_mi.pairs import (
    AbstractPairing,
    AllPairs,
    Derangement,
    EnumeratedLabels,
    IndependentMarginal,
    SameLabel,
    TwoViews,
)
from tests.helpers.loops import NO_JOINT, Given
from tests.helpers.specs import BOUNDS, BoundSpec, by_name

LABELS = torch.tensor([4, 4, 4, 7, 7, 1])  # 3 x 2 + 2 x 1 of 6 x 5 pairs share a label


def perfect(labels: Tensor, score: float = 500.0) -> Given:
    """The same score wherever two labels are equal, 0 elsewhere."""
    return Given(score * (labels[:, None] == labels).double())


def scores_of(critic: Given, labels: Tensor, exclude: bool = False) -> Scores:
    return SameLabel(exclude_same_label=exclude)(critic, torch.zeros(len(labels), 2), labels)


def test_perfect_critic_reads_the_logarithm_of_how_rare_joint_pairs_are() -> None:
    value = bounds.DV()(scores_of(perfect(LABELS), LABELS)).value
    assert value.item() == pytest.approx(math.log(30 / 8), abs=1e-12)


def test_rows_of_infonce_count_once_for_each_of_their_joint_pairs() -> None:
    value = bounds.InfoNCE()(scores_of(perfect(LABELS), LABELS)).value
    # 6 joint pairs lie in rows where 2 of 5 others share the label, 2 where 1 of 5 does.
    assert value.item() == pytest.approx((6 * math.log(5 / 2) + 2 * math.log(5)) / 8, abs=1e-12)


def test_without_same_label_pairs_in_the_marginal_the_value_has_no_bound_where_x_tells_its_label() -> None:
    for score in (5.0, 50.0, 500.0):
        value = bounds.DV()(scores_of(perfect(LABELS, score), LABELS, exclude=True)).value
        assert value.item() == pytest.approx(score, abs=1e-12)


def test_without_same_label_pairs_in_the_marginal_the_optimum_is_that_of_the_documented_ratio() -> None:
    """Two classes, equally frequent, seen through three symbols: x does not tell its label for sure."""
    given_class = np.array([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]])
    law = given_class.mean(axis=0)
    joint = given_class.T @ given_class / 2
    ratio = joint / np.outer(law, law)
    excluded = (1 - 1 / 2) * ratio / (1 - ratio / 2)
    mi = (joint * np.log(ratio)).sum()
    expected = mi + math.log(1 - 1 / 2) - (joint * np.log(1 - ratio / 2)).sum()
    assert expected > 2 * mi
    symbols = np.concatenate([np.repeat(np.arange(3), (200 * row).round().astype(int)) for row in given_class])
    labels = torch.arange(2).repeat_interleave(200)
    for exclude, critic, value in ((False, ratio, mi), (True, excluded, expected)):
        matrix = torch.tensor(np.log(critic)[np.ix_(symbols, symbols)])
        terms = bounds.DV()(scores_of(Given(matrix), labels, exclude))
        # Pairs leave out a sample with itself, so class frequencies among 400 are right to 1 / 400.
        assert terms.value.item() == pytest.approx(value, abs=5e-3)
        assert terms.log_normalizer.item() == pytest.approx(0, abs=5e-3)


def test_infonce_is_the_same_without_same_label_pairs_in_the_marginal() -> None:
    critic = Given(torch.randn(6, 6, dtype=torch.float64))
    kept, dropped = (bounds.InfoNCE()(scores_of(critic, LABELS, exclude)) for exclude in (False, True))
    assert torch.equal(torch.stack(kept), torch.stack(dropped))


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_batch_without_a_joint_pair_gives_finite_terms_and_gradients(spec: BoundSpec) -> None:
    bound, critic = NO_JOINT.bound(spec), BilinearCritic(2, 2).double()
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    scores = SameLabel()(critic, x, torch.tensor(NO_JOINT.labels))
    terms = bound(scores)
    penalty = regularizers.Squared()(terms, bound)
    (penalty - terms.objective).backward()
    assert (scores.num_joint, scores.num_marginal) == (0, 12)
    assert torch.stack([*terms, penalty]).isfinite().all()
    assert x.grad.isfinite().all()
    assert critic.weight.grad.isfinite().all()
    if spec.needs_rows:
        assert terms.value.item() == 0
        assert (x.grad == 0).all()
    assert bound.log_ratio(scores).shape == (0,)


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_batch_without_a_joint_pair_pulls_at_no_score_by_its_joint_term(spec: BoundSpec) -> None:
    t = torch.tensor(NO_JOINT.draw(), requires_grad=True)
    NO_JOINT.bound(spec)(NO_JOINT.scores(t)).joint_term.backward()
    assert (t.grad == 0).all()


@pytest.mark.parametrize("make", [SameLabel, lambda: EnumeratedLabels(5)], ids=["same", "enumerated"])
def test_negative_label_is_an_error_with_its_remedy(make) -> None:
    with pytest.raises(ValueError, match=r"got label -1 at position 2: .* often means an unlabelled .* Drop"):
        make()(InnerProductCritic(), torch.ones(4, 5), torch.tensor([0, 1, -1, -1]))


def test_batch_of_a_single_label_without_same_label_pairs_is_an_error() -> None:
    with pytest.raises(ValueError, match="batch of 3 samples that all have label 5: with exclude_same_label=True no"):
        scores_of(perfect(torch.full((3,), 5)), torch.full((3,), 5), exclude=True)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("pairing", [SameLabel(), TwoViews()], ids=repr)
def test_batch_of_one_has_no_marginal_pairs(pairing: AbstractPairing, n: int) -> None:
    second = torch.zeros(n, 2) if isinstance(pairing, TwoViews) else torch.zeros(n, dtype=torch.long)
    with pytest.raises(ValueError, match=f"Got a batch of {n}: .*drop_last=True"):
        pairing(InnerProductCritic(), torch.zeros(n, 2), second)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(3), TypeError, r"SameLabel got labels of type float32: class labels are integers"),
        (torch.zeros(3, dtype=torch.bool), TypeError, "labels of type bool"),
        (None, TypeError, "SameLabel got labels of type NoneType"),
        (torch.zeros(4, dtype=torch.long), ValueError, r"labels of shape \(4,\) for 3 samples"),
        (torch.zeros(3, 1, dtype=torch.long), ValueError, r"labels of shape \(3, 1\) for 3 samples"),
    ],
    ids=str,
)
def test_labels_that_do_not_fit_are_an_error(labels, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SameLabel()(InnerProductCritic(), torch.zeros(3, 2), labels)


@pytest.mark.parametrize(("pairing", "names"), [(SameLabel(), "x, labels"), (TwoViews(), "x, y")], ids=str)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_wrong_number_of_views_is_an_error(pairing: AbstractPairing, names: str, count: int) -> None:
    name = type(pairing).__name__
    with pytest.raises(ValueError, match=f"Got {count} views? of the batch: {name} takes 2, {names}. Choose another"):
        pairing(InnerProductCritic(), *[torch.zeros(3, 2)] * count)


def test_views_of_different_kinds_are_an_error() -> None:
    with pytest.raises(ValueError, match="Got 3 x and 4 y"):
        TwoViews()(InnerProductCritic(), torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"x of shape \(3, 2\) and y of shape \(3, 5\): TwoViews scores every view"):
        TwoViews()(InnerProductCritic(), torch.zeros(3, 2), torch.zeros(3, 5))


def test_two_views_is_the_loss_of_simclr() -> None:
    """NT-Xent, with its denominator's mean turned into a sum: log(2 N - 1) more than the value."""
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    z = torch.nn.functional.normalize(torch.cat([x, y]), dim=1).numpy()
    losses = []
    for i in range(8):
        similarity = [math.exp(z[i] @ z[j] / 0.5) for j in range(8)]
        losses.append(-math.log(similarity[(i + 4) % 8] / (sum(similarity) - similarity[i])))
    terms = bounds.InfoNCE()(TwoViews()(InnerProductCritic(normalize=True, temperature=0.5), x, y))
    assert terms.value.item() == pytest.approx(math.log(7) - np.mean(losses), abs=1e-12)


@pytest.mark.parametrize(
    ("pairing", "num_views", "takes_labels"),
    [
        (AllPairs, 2, False),
        (Derangement, 2, False),
        (IndependentMarginal, 4, False),
        (TwoViews, 2, False),
        (SameLabel, 1, True),
        (EnumeratedLabels, 1, True),
        (AbstractPairing, None, False),
    ],
)
def test_pairings_declare_what_they_take(pairing: type[AbstractPairing], num_views: int, takes_labels: bool) -> None:
    assert (pairing.num_views, pairing.takes_labels) == (num_views, takes_labels)
