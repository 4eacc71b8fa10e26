"""SameLabel and TwoViews: values at a perfect critic, batches without joint pairs, invalid inputs."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mi import Scores, bounds, regularizers
from lightning_mi.critics import BilinearCritic, InnerProductCritic
from lightning_mi.pairs import EnumeratedLabels, SameLabel, TwoViews
from tests.helpers.loops import NO_JOINT, FixedCritic
from tests.helpers.specs import BOUNDS, BoundSpec, by_name

LABELS = torch.tensor([4, 4, 4, 7, 7, 1])  # 3 x 2 + 2 x 1 of 6 x 5 pairs share a label


def perfect(labels: Tensor, score: float = 500.0) -> FixedCritic:
    """One score for equal labels, 0 for others."""
    return FixedCritic(score * (labels[:, None] == labels).double())


def scores_of(critic: FixedCritic, labels: Tensor, exclude: bool = False) -> Scores:
    return SameLabel(exclude_same_label=exclude)(critic, torch.zeros(len(labels), 2), labels)


def test_perfect_critic_gives_minus_log_the_fraction_of_joint_pairs() -> None:
    value = bounds.DV()(scores_of(perfect(LABELS), LABELS)).value
    assert value.item() == pytest.approx(math.log(30 / 8), abs=1e-12)


def test_rows_of_infonce_count_once_for_each_joint_pair() -> None:
    value = bounds.InfoNCE()(scores_of(perfect(LABELS), LABELS)).value
    # 6 joint pairs are in rows in which 2 of 5 others have the same label, 2 in rows in which 1 of 5 has.
    assert value.item() == pytest.approx((6 * math.log(5 / 2) + 2 * math.log(5)) / 8, abs=1e-12)


def test_excluded_same_label_pairs_make_the_value_unbounded() -> None:
    for score in (5.0, 50.0, 500.0):
        value = bounds.DV()(scores_of(perfect(LABELS, score), LABELS, exclude=True)).value
        assert value.item() == pytest.approx(score, abs=1e-12)


def test_excluded_same_label_pairs_have_the_documented_optimum() -> None:
    """Two classes, equally frequent, and three symbols: x does not determine its label."""
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
        terms = bounds.DV()(scores_of(FixedCritic(matrix), labels, exclude))
        # No sample is paired with itself, so the class frequencies of 400 samples are exact to 1 / 400.
        assert terms.value.item() == pytest.approx(value, abs=5e-3)
        assert terms.log_normalizer.item() == pytest.approx(0, abs=5e-3)


def test_excluded_same_label_pairs_do_not_change_infonce() -> None:
    critic = FixedCritic(torch.randn(6, 6, dtype=torch.float64))
    included, dropped = (bounds.InfoNCE()(scores_of(critic, LABELS, exclude)) for exclude in (False, True))
    assert torch.equal(torch.stack(included), torch.stack(dropped))


@pytest.mark.parametrize("spec", BOUNDS, ids=by_name)
def test_batch_without_joint_pairs_gives_finite_terms_and_gradients(spec: BoundSpec) -> None:
    bound, critic = NO_JOINT.bound(spec), BilinearCritic(2, 2).double()
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    scores = SameLabel()(critic, x, NO_JOINT.views[1])
    terms = bound(scores)
    penalty = regularizers.Squared()(terms)
    (gradient,) = torch.autograd.grad(terms.joint_term, x, retain_graph=True)
    assert (gradient == 0).all(), "there is no joint pair"
    (penalty - terms.objective).backward()
    assert (scores.num_joint, scores.num_marginal) == (0, 12)
    assert torch.stack([*terms, penalty]).isfinite().all()
    assert x.grad.isfinite().all()
    assert critic.weight.grad.isfinite().all()
    if spec.needs_rows:
        assert terms.value.item() == 0
        assert (x.grad == 0).all()
    assert bound.log_ratio(scores).shape == (0,)


def test_negative_label_is_an_error_with_its_remedy() -> None:
    for pairing in (SameLabel(), EnumeratedLabels(5)):
        with pytest.raises(ValueError, match=r"got label -1 at position 2: .* often means an unlabelled .* Drop"):
            pairing(InnerProductCritic(), torch.ones(4, 5), torch.tensor([0, 1, -1, -1]))


def test_batch_of_one_label_without_marginal_pairs_is_an_error() -> None:
    with pytest.raises(ValueError, match="batch of 3 samples that all have label 5: with exclude_same_label=True no"):
        scores_of(perfect(torch.full((3,), 5)), torch.full((3,), 5), exclude=True)


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
def test_invalid_labels_are_an_error(labels, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SameLabel()(InnerProductCritic(), torch.zeros(3, 2), labels)


def test_two_views_of_different_shapes_are_an_error() -> None:
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
