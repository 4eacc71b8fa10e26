"""EnumeratedLabels: values at a perfect critic, predictions, invalid inputs."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from lightning_mi import bounds, regularizers
from lightning_mi.critics import AbstractCritic, BilinearCritic, CalibratedCritic, InnerProductCritic, LabelCritic
from lightning_mi.pairs import EnumeratedLabels

C = 10
NOTHING = -1000.0  # the log of probability 0, as a score
LABELS = torch.arange(C).repeat(2)


def perfect(labels: Tensor, prior: Tensor, shift: float = 0.0) -> Tensor:
    """The log density ratio of a label that x determines, plus a constant."""
    x = torch.full((len(labels), len(prior)), NOTHING, dtype=torch.float64)
    x[torch.arange(len(labels)), labels] = -prior.log()[labels]
    return x + shift


def value(bound: bounds.AbstractBound, shift: float) -> float:
    uniform = torch.full((C,), 1 / C, dtype=torch.float64)
    return bound(EnumeratedLabels(C, "uniform")(LabelCritic(), perfect(LABELS, uniform, shift), LABELS)).value.item()


@pytest.mark.parametrize(
    ("make", "shift", "gap"),
    [
        (bounds.DV, 0.0, 0.0),
        (bounds.DV, 3.0, 0.0),
        (bounds.MINE, -2.0, 0.0),
        (bounds.InfoNCE, 1.0, 0.0),
        (bounds.NWJ, 1.0, 0.0),
        (bounds.TUBA, 0.0, 0.0),
        (partial(bounds.TUBA, baseline=2.5), math.log(2.5), 0.0),
        (bounds.JS, 0.0, 0.0),
        (bounds.ReleasedJS, 0.0, -1 / math.e),
        # The clip raises the scores of the other labels.
        (partial(bounds.SMILE, tau=5.0), 0.0, -math.log(1 + 0.9 * math.exp(-5))),
        (partial(bounds.ReleasedNWJ, clip=10.0), 1.0, -0.9 * math.exp(-11)),
        (partial(bounds.ReleasedTUBA, clip=10.0), 0.0, -0.9 * math.exp(-10)),
    ],
)
def test_perfect_critic_of_uniform_labels_gives_log_c(make, shift: float, gap: float) -> None:
    assert value(make(), shift) == pytest.approx(math.log(C) + gap, abs=1e-12)


def test_released_js_gives_the_published_figure() -> None:
    assert value(bounds.ReleasedJS(), 0.0) == pytest.approx(1.935, abs=5e-4)


@pytest.mark.parametrize(("weight", "gap"), [(1.0, -0.217), (0.1, -0.015)])
def test_regularized_released_nwj_is_low_by_its_known_gap(weight: float, gap: float) -> None:
    """Over all constants that may be added to the log ratio, the one where the regularized objective is highest."""
    bound, penalize = bounds.ReleasedNWJ(), regularizers.Squared(weight)
    x, pairing = perfect(LABELS, torch.full((C,), 1 / C, dtype=torch.float64)), EnumeratedLabels(C, "uniform")

    def slope(shift: float) -> float:
        constant = torch.tensor(shift, dtype=torch.float64, requires_grad=True)
        terms = bound(pairing(LabelCritic(), x + constant, LABELS))
        return torch.autograd.grad(terms.objective - penalize(terms), constant)[0].item()

    assert value(bound, brentq(slope, -1, 2)) - math.log(C) == pytest.approx(gap, abs=5e-4)


def test_another_prior_adds_its_divergence() -> None:
    prior, labels = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0, 0, 1, 2, 2, 2])
    law = labels.bincount() / len(labels)
    entropy, divergence = -(law * law.log()).sum(), (law * (law / prior).log()).sum()
    scores = EnumeratedLabels(3, prior)(LabelCritic(), perfect(labels, prior), labels)
    for bound in (bounds.DV(), bounds.TUBA(), bounds.JS(), bounds.InfoNCE()):
        assert bound(scores).value.item() == pytest.approx((entropy + divergence).item(), abs=1e-7)


def test_unused_classes_raise_the_value_to_log_c() -> None:
    uniform = torch.full((20,), 1 / 20, dtype=torch.float64)
    scores = EnumeratedLabels(20, "uniform")(LabelCritic(), perfect(LABELS, uniform), LABELS)
    assert bounds.DV()(scores).value.item() == pytest.approx(math.log(20), abs=1e-12)


def test_uniform_prior_equals_equal_probabilities_bitwise() -> None:
    x, labels = torch.randn(6, 4), torch.tensor([3, 0, 0, 1, 2, 2])
    uniform, *others = (
        EnumeratedLabels(4, prior)(LabelCritic(), x, labels)
        for prior in ("uniform", [0.25] * 4, torch.full((4,), 0.25))
    )
    for other in others:
        for reduction in ("log_mean_exp", "row_log_mean_exp", "mean_softplus"):
            assert torch.equal(getattr(uniform, reduction)(), getattr(other, reduction)())
        assert other.num_candidates == 4


def test_prior_survives_half_precision_copies_and_pickling() -> None:
    pairing = EnumeratedLabels(3, torch.tensor([0.2, 0.3, 0.5]))
    x, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    expected = pairing(LabelCritic(), x, labels).log_mean_exp()
    for other in (copy.deepcopy(pairing), pickle.loads(pickle.dumps(pairing)), pairing.to(torch.bfloat16)):
        assert torch.equal(other(LabelCritic(), x, labels).log_mean_exp(), expected)


def test_prediction_is_the_label_of_the_highest_score() -> None:
    x = torch.randn(50, 7)
    expected = [max(range(7), key=lambda c: x[i, c].item()) for i in range(50)]
    for critic in (LabelCritic(), CalibratedCritic(LabelCritic())):
        observed = EnumeratedLabels(7, "uniform").predict(critic, x.requires_grad_())
        assert observed.tolist() == expected
        assert (observed.dtype, observed.requires_grad) == (torch.int64, False)


def test_critic_may_embed_labels() -> None:
    class Embedding(AbstractCritic):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(5, 2)

        def paired(self, x: Tensor, y: Tensor) -> Tensor:
            return (x * self.embedding(y)).sum(1)

        def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
            return x @ self.embedding(y).T

    critic, x, labels = Embedding(), torch.randn(3, 2), torch.tensor([4, 0, 2])
    scores = EnumeratedLabels(5)(critic, x, labels)
    torch.testing.assert_close(scores.joint, critic.paired(x, labels))
    assert scores.num_marginal == 15


def test_labels_are_integers_of_any_dtype() -> None:
    x = torch.randn(3, 4)
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        scores = EnumeratedLabels(4)(LabelCritic(), x, torch.tensor([3, 0, 2], dtype=dtype))
        assert scores.joint.tolist() == [x[0, 3], x[1, 0], x[2, 2]]


@pytest.mark.parametrize("labels", [torch.eye(2), torch.tensor([True, False]), None], ids=str)
def test_labels_that_are_not_integers_are_an_error(labels: Tensor | None) -> None:
    with pytest.raises(TypeError, match=r"EnumeratedLabels got labels of type .*(\.long\(\)|NoneType)"):
        EnumeratedLabels(2)(LabelCritic(), torch.zeros(2, 2), labels)


def test_wrong_number_of_labels_is_an_error() -> None:
    for shape in [(3,), (2, 1), (1,), ()]:
        with pytest.raises(ValueError, match=r"got labels of shape .* for 2 samples"):
            EnumeratedLabels(2)(LabelCritic(), torch.zeros(2, 2), torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("prior", [None, [0.1, 0.2, 0.3, 0.4]])
def test_label_outside_the_classes_is_an_error(prior: list[float] | None) -> None:
    for label in (4, 200, -1):
        with pytest.raises(ValueError, match=f"EnumeratedLabels got label {label} at position 1: (its 4 lab|class)"):
            EnumeratedLabels(4, prior)(LabelCritic(), torch.zeros(4, 4), torch.tensor([0, label, 99, 1]))


def test_label_of_prior_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="Got label 1 at position 2, with prior probability 0: the value"):
        EnumeratedLabels(3, [0.5, 0.0, 0.5])(LabelCritic(), torch.zeros(3, 3), torch.tensor([0, 2, 1]))


@pytest.mark.parametrize(
    ("critic", "outputs"), [(LabelCritic(), 3), (CalibratedCritic(CalibratedCritic(LabelCritic()), scale=True), 5)]
)
def test_wrong_number_of_encoder_outputs_is_an_error(critic, outputs: int) -> None:
    x, pairing = torch.zeros(2, outputs), EnumeratedLabels(4)
    for read in (lambda: pairing(critic, x, torch.tensor([0, 1])), lambda: pairing.predict(critic, x)):
        with pytest.raises(ValueError, match=f"the encoder has {outputs} outputs for the 4 labels"):
            read()


def test_critic_without_one_score_a_label_is_an_error() -> None:
    class Wrong(AbstractCritic):
        def paired(self, x: Tensor, y: Tensor) -> Tensor:
            return x[:, 0]

        def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match=r"Wrong gave scores of shape \(2, 3\).* needs one for each label, \(2, 4\)"):
        EnumeratedLabels(4)(Wrong(), torch.zeros(2, 3), torch.tensor([0, 1]))


@pytest.mark.parametrize("critic", [InnerProductCritic(), BilinearCritic(4, 4)], ids=["inner product", "bilinear"])
def test_critic_of_representations_is_an_error(critic) -> None:
    with pytest.raises(TypeError, match=r"Got y of type int64 .*critics\.LabelCritic"):
        EnumeratedLabels(4)(critic, torch.zeros(2, 4), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.5], r"Got a prior of shape \(2,\) for 3 classes"),
        ([[0.5, 0.3, 0.2]], r"Got a prior of shape \(1, 3\) for 3 classes"),
        ([0.5, 0.6, -0.1], "probabilities are finite and not negative"),
        ([0.5, 0.5, math.nan], "probabilities are finite and not negative"),
        ([0.5, math.inf, 0.5], "probabilities are finite and not negative"),
        ([5.0, 3.0, 2.0], "Got a prior that sums to 10: probabilities sum to 1. Divide counts by their sum"),
        (torch.zeros(3), "Got a prior that sums to 0"),
        ("unifrom", "Got prior='unifrom': it is"),
    ],
    ids=str,
)
def test_invalid_prior_is_an_error(prior, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnumeratedLabels(3, prior)


def test_float32_prior_of_many_classes_is_normalized() -> None:
    prior = torch.rand(1000).softmax(0)
    x, labels = torch.randn(2, 1000, dtype=torch.float64), torch.tensor([0, 999])
    law = prior.double() / prior.double().sum()
    observed = EnumeratedLabels(1000, prior)(LabelCritic(), x, labels).log_mean_exp()
    torch.testing.assert_close(observed, (x.exp() * law).sum(1).mean().log(), rtol=1e-13, atol=1e-13)


def test_fewer_than_two_classes_are_an_error() -> None:
    with pytest.raises(ValueError, match="Got num_classes=1: it must be at least 2"):
        EnumeratedLabels(1)
