"""Pairings with labels, and two views, against loops over pairs in float64 NumPy."""

import math

import numpy as np
import pytest
import torch

from lightning_mi import bounds, critics
from lightning_mi.pairs import AllPairs, EnumeratedLabels, SameLabel, TwoViews
from tests.bounds.test_against_reference import assert_terms_equal
from tests.reference import Sheet
from tests.specs import BOUNDS, BoundSpec

IDS = [spec.name for spec in BOUNDS]
N, C, D = 12, 4, 3
# Of (representations, labels): class 3 has a single sample in the batch.
LABELS = np.array([0, 1, 2, 0, 0, 1, 2, 2, 1, 0, 3, 1])
PRIOR = (0.5, 0.125, 0.125, 0.25)


class OneScore(critics.AbstractCritic):
    """Scores a sample, whatever the label."""

    def paired(self, x, y):
        return x.sum(dim=1)

    def pairwise(self, x, y):
        return x.sum(dim=1, keepdim=True)


def features(seed: int, *shape: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def check(spec: BoundSpec, scores, x, sheet: Sheet, to_x) -> None:
    """Terms and the gradient with respect to x: ``to_x`` takes that of the sheet to that of x."""
    terms = spec.make()(scores)
    reading = spec.reference(sheet)
    assert_terms_equal(terms, reading, 1e-11)
    (gradient,) = torch.autograd.grad(terms.objective, x)
    np.testing.assert_allclose(gradient.numpy(), to_x(reading.d_objective), rtol=1e-8, atol=1e-11)


def without_baseline(specs: list[BoundSpec]) -> list[BoundSpec]:
    """A learned baseline of labels, (M,), is another module than the specs' of vectors (M, 2)."""
    return [spec for spec in specs if not spec.has_learned_baseline]


@pytest.mark.parametrize("spec", without_baseline(BOUNDS), ids=lambda spec: spec.name)
def test_enumerated_labels_are_a_loop_over_samples_and_classes(spec: BoundSpec) -> None:
    x = features(0, N, C)
    scores = EnumeratedLabels(C)(critics.LabelCritic(), x, torch.tensor(LABELS))
    t, joint, marginal = np.zeros((N, C)), np.zeros((N, C), dtype=bool), np.zeros((N, C), dtype=bool)
    for i in range(N):
        for y in range(C):
            t[i, y] = x[i, y].item()
            joint[i, y] = y == LABELS[i]
            marginal[i, y] = True
    check(spec, scores, x, Sheet(t, joint, marginal), lambda d: d)


@pytest.mark.parametrize("spec", without_baseline(BOUNDS), ids=lambda spec: spec.name)
def test_a_prior_weighs_labels_as_often_as_it_repeats_them(spec: BoundSpec) -> None:
    x = features(1, N, C)
    scores = EnumeratedLabels(C, PRIOR)(critics.LabelCritic(), x, torch.tensor(LABELS))
    # In eighths, the prior repeats label 0 four times, 1 and 2 once, 3 twice, among equally likely columns.
    columns = [0, 0, 0, 0, 1, 2, 3, 3]
    t = x.detach().numpy()[:, columns]
    joint = np.zeros(t.shape, dtype=bool)
    for i, label in enumerate(LABELS):
        joint[i, columns.index(label)] = True

    def fold(d: np.ndarray) -> np.ndarray:
        folded = np.zeros((N, C))
        for column, label in enumerate(columns):
            folded[:, label] += d[:, column]
        return folded

    check(spec, scores, x, Sheet(t, joint, np.ones_like(joint)), fold)


def test_a_uniform_prior_is_no_prior() -> None:
    x, labels = features(2, N, C), torch.tensor(LABELS)
    plain = EnumeratedLabels(C)(critics.LabelCritic(), x, labels)
    given = EnumeratedLabels(C, [0.25] * C)(critics.LabelCritic(), x, labels)
    for of in (lambda s: s.log_mean_exp(clip=0.5, power=2.0), lambda s: s.mean_softplus()):
        torch.testing.assert_close(of(plain), of(given), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(plain.row_log_mean_exp(), given.row_log_mean_exp(), rtol=1e-6, atol=1e-7)
    assert (plain.num_candidates, given.num_candidates) == (C, None)


@pytest.mark.parametrize("spec", BOUNDS, ids=IDS)
def test_same_label_pairs_are_a_loop_over_pairs_of_samples(spec: BoundSpec) -> None:
    x = features(3, N, 2)
    scores = SameLabel()(critics.InnerProductCritic(), x, torch.tensor(LABELS))
    z = x.detach().numpy()
    t, joint, marginal = np.zeros((N, N)), np.zeros((N, N), dtype=bool), np.zeros((N, N), dtype=bool)
    for i in range(N):
        for j in range(N):
            t[i, j] = sum(z[i, k] * z[j, k] for k in range(2))
            joint[i, j] = i != j and LABELS[i] == LABELS[j]
            marginal[i, j] = i != j
    sheet = Sheet(t, joint, marginal, y=np.broadcast_to(z, (N, N, 2)))
    if spec.has_learned_baseline:  # its candidates carry a gradient too, which the reference does not write out
        assert_terms_equal(spec.make()(scores), spec.reference(sheet), 1e-11)
    else:
        check(spec, scores, x, sheet, lambda d: d @ z + d.T @ z)


def test_excluded_same_label_pairs_leave_the_marginal_only() -> None:
    x = features(4, N, D)
    scores = SameLabel(exclude_same_label=True)(critics.InnerProductCritic(), x, torch.tensor(LABELS))
    pairs = [(i, j) for i in range(N) for j in range(N) if LABELS[i] != LABELS[j]]
    z = x.detach().numpy()
    np.testing.assert_allclose(scores.marginal_values().detach().numpy(), [z[i] @ z[j] for i, j in pairs], rtol=1e-12)
    assert scores.num_joint == SameLabel()(critics.InnerProductCritic(), x, torch.tensor(LABELS)).num_joint
    with pytest.raises(ValueError, match="at least one marginal pair"):
        SameLabel(exclude_same_label=True)(critics.InnerProductCritic(), x, torch.zeros(N, dtype=torch.long))


@pytest.mark.parametrize("spec", [spec for spec in BOUNDS if not spec.has_learned_baseline], ids=lambda s: s.name)
def test_two_views_are_a_loop_over_both_views_of_all_samples(spec: BoundSpec) -> None:
    x, y = features(5, 5, D), torch.tensor(np.random.default_rng(6).normal(size=(5, D)))
    scores = TwoViews()(critics.InnerProductCritic(), x, y)
    z = np.concatenate([x.detach().numpy(), y.numpy()])
    sample = [*range(5), *range(5)]
    t, joint, marginal = np.zeros((10, 10)), np.zeros((10, 10), dtype=bool), np.zeros((10, 10), dtype=bool)
    for i in range(10):
        for j in range(10):
            t[i, j] = z[i] @ z[j]
            joint[i, j] = i != j and sample[i] == sample[j]
            marginal[i, j] = sample[i] != sample[j]
    check(spec, scores, x, Sheet(t, joint, marginal), lambda d: (d @ z + d.T @ z)[:5])
    assert scores.num_candidates == 9


@pytest.mark.parametrize("spec", BOUNDS, ids=IDS)
def test_a_batch_without_a_joint_pair_has_no_joint_term_and_finite_gradients(spec: BoundSpec) -> None:
    x = features(7, 4, 2)
    scores = SameLabel()(critics.InnerProductCritic(), x, torch.arange(4))
    assert scores.num_joint == 0
    terms = spec.make()(scores)
    assert all(math.isfinite(term.item()) for term in terms)
    (terms.log_normalizer - terms.objective).backward()
    assert bool(torch.isfinite(x.grad).all())


def test_a_user_s_mask_without_a_joint_pair_is_still_an_error() -> None:
    from lightning_mi import Scores

    with pytest.raises(ValueError, match="at least one joint pair"):
        Scores.from_matrix(torch.zeros(3, 3), joint=torch.zeros(3, 3, dtype=torch.bool))


@pytest.mark.parametrize("num_classes", [10, 100])
def test_a_perfect_critic_of_uniform_labels_reads_their_entropy(num_classes: int) -> None:
    labels = torch.arange(num_classes).repeat(3)
    own = labels.unsqueeze(1) == torch.arange(num_classes)
    log_ratio = torch.where(own, torch.tensor(math.log(num_classes), dtype=torch.float64), -60.0)

    def read(bound: bounds.AbstractBound, shift: float = 0.0) -> float:
        return bound(EnumeratedLabels(num_classes)(critics.LabelCritic(), log_ratio + shift, labels)).value.item()

    entropy = math.log(num_classes)
    for bound, shift in ((bounds.DV(), 3.0), (bounds.InfoNCE(), 3.0), (bounds.NWJ(), 1.0), (bounds.TUBA(), 0.0)):
        assert read(bound, shift) == pytest.approx(entropy, abs=1e-12)
    assert read(bounds.JS()) == pytest.approx(entropy, abs=1e-12)
    # What the released code reports as JS: 1.935 for ten classes, 4.237 for a hundred.
    assert read(bounds.ReleasedJS()) == pytest.approx(entropy - math.exp(-1), abs=1e-12)
    assert entropy - math.exp(-1) == pytest.approx({10: 1.935, 100: 4.237}[num_classes], abs=5e-4)


def test_prediction_is_the_argmax_over_labels() -> None:
    x = features(8, N, C).detach()
    predicted = EnumeratedLabels(C).predict(critics.Calibrated(critics.LabelCritic()).double(), x)
    np.testing.assert_array_equal(predicted.numpy(), x.numpy().argmax(axis=1))


def test_the_prior_moves_with_the_module_and_stays_out_of_checkpoints() -> None:
    pairing = EnumeratedLabels(2, [0.25, 0.75]).to("meta")
    assert pairing.prior is not None
    assert pairing.prior.is_meta
    assert pairing.state_dict() == {}


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (torch.tensor([0.0, 1.0, 2.0]), TypeError, "class labels are integers"),
        (torch.tensor([True, False, True]), TypeError, "class labels are integers"),
        (torch.tensor([0, 1]), ValueError, r"shape is \(3,\)"),
        (torch.tensor([[0], [1], [2]]), ValueError, r"shape is \(3,\)"),
    ],
)
def test_what_are_no_labels_is_refused(labels: torch.Tensor, error: type[Exception], words: str) -> None:
    for pairing in (EnumeratedLabels(3), SameLabel()):
        with pytest.raises(error, match=words):
            pairing(critics.InnerProductCritic(), torch.zeros(3, 3), labels)


def test_other_bad_input_is_an_error_that_says_what_to_do() -> None:
    label_critic, x = critics.LabelCritic(), torch.zeros(3, 3)
    with pytest.raises(ValueError, match=r"Label 7 at index 1 is out of range.*0 to 2"):
        EnumeratedLabels(3)(label_critic, x, torch.tensor([0, 7, 1]))
    with pytest.raises(ValueError, match="one logit for each class, so its output width is at least 5"):
        EnumeratedLabels(5)(label_critic, x, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="LabelCritic takes"):
        label_critic.paired(x, torch.zeros(3))
    with pytest.raises(ValueError, match="takes a view and its labels"):
        SameLabel()(critics.InnerProductCritic(), x)
    with pytest.raises(ValueError, match="batch of 1"):
        SameLabel()(critics.InnerProductCritic(), x[:1], torch.tensor([0]))
    with pytest.raises(ValueError, match="the same width"):
        TwoViews()(critics.InnerProductCritic(), x, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="2 probabilities for 3 classes"):
        EnumeratedLabels(3, [0.5, 0.5])
    for prior in ([0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [float("nan"), 0.5, 0.5]):
        with pytest.raises(ValueError, match="positive and sum to 1"):
            EnumeratedLabels(3, prior)
    with pytest.raises(ValueError, match="two or more classes"):
        EnumeratedLabels(1)
    with pytest.raises(ValueError, match=r"gave scores of shape \(3, 1\) for 3 samples"):
        EnumeratedLabels(3)(OneScore(), x, torch.tensor([0, 1, 2]))


def test_all_pairs_ignores_nothing_that_is_not_labels() -> None:
    with pytest.raises(ValueError, match="Got 3 views"):
        AllPairs()(critics.InnerProductCritic(), *[torch.zeros(3, 3)] * 3)
