"""Labels that are enumerated: what a perfect critic reads, predictions, and bad input."""

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
NOTHING = -1000.0  # the logarithm of a probability of 0, as a score
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
        # What the clip leaves of the other labels, whose scores are far below it.
        (partial(bounds.SMILE, tau=5.0), 0.0, -math.log(1 + 0.9 * math.exp(-5))),
        (partial(bounds.ReleasedNWJ, clip=10.0), 1.0, -0.9 * math.exp(-11)),
        (partial(bounds.ReleasedTUBA, clip=10.0), 0.0, -0.9 * math.exp(-10)),
    ],
)
def test_perfect_critic_of_uniform_labels_reads_log_c(make, shift: float, gap: float) -> None:
    assert value(make(), shift) == pytest.approx(math.log(C) + gap, abs=1e-12)


def test_released_js_reads_the_published_figures() -> None:
    assert value(bounds.ReleasedJS(), 0.0) == pytest.approx(1.935, abs=5e-4)


@pytest.mark.parametrize(("weight", "gap"), [(1.0, -0.217), (0.1, -0.015)])
def test_regularized_optimum_of_released_nwj_reads_low_by_its_known_gap(weight: float, gap: float) -> None:
    """Over all constants that may be added to the log ratio, the one where the regularized objective is highest."""
    bound, penalize = bounds.ReleasedNWJ(), regularizers.Squared(weight)
    x, pairing = perfect(LABELS, torch.full((C,), 1 / C, dtype=torch.float64)), EnumeratedLabels(C, "uniform")

    def slope(shift: float) -> float:
        constant = torch.tensor(shift, dtype=torch.float64, requires_grad=True)
        terms = bound(pairing(LabelCritic(), x + constant, LABELS))
        return torch.autograd.grad(terms.objective - penalize(terms), constant)[0].item()

    assert value(bound, brentq(slope, -1, 2)) - math.log(C) == pytest.approx(gap, abs=5e-4)


def test_prior_that_is_not_the_datas_adds_its_divergence() -> None:
    prior, labels = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0, 0, 1, 2, 2, 2])
    law = labels.bincount() / len(labels)
    entropy, divergence = -(law * law.log()).sum(), (law * (law / prior).log()).sum()
    scores = EnumeratedLabels(3, prior)(LabelCritic(), perfect(labels, prior), labels)
    for bound in (bounds.DV(), bounds.TUBA(), bounds.JS(), bounds.InfoNCE()):
        assert bound(scores).value.item() == pytest.approx((entropy + divergence).item(), abs=1e-7)


def test_more_classes_than_the_data_holds_raise_the_value_to_their_logarithm() -> None:
    uniform = torch.full((20,), 1 / 20, dtype=torch.float64)
    scores = EnumeratedLabels(20, "uniform")(LabelCritic(), perfect(LABELS, uniform), LABELS)
    assert bounds.DV()(scores).value.item() == pytest.approx(math.log(20), abs=1e-12)


@pytest.mark.parametrize("prior", [[0.25] * 4, torch.full((4,), 0.25)], ids=["list", "tensor"])
def test_uniform_prior_is_bitwise_that_of_equal_numbers(prior) -> None:
    x, labels = torch.randn(6, 4), torch.tensor([3, 0, 0, 1, 2, 2])
    default, given = (EnumeratedLabels(4, p)(LabelCritic(), x, labels) for p in ("uniform", prior))
    for read in ("log_mean_exp", "row_log_mean_exp", "mean_softplus"):
        assert torch.equal(getattr(default, read)(), getattr(given, read)())
    assert given.num_candidates == 4


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


def test_critic_that_embeds_labels_is_one_too() -> None:
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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_labels_are_integers_of_any_type(dtype: torch.dtype) -> None:
    x = torch.randn(3, 4)
    scores = EnumeratedLabels(4)(LabelCritic(), x, torch.tensor([3, 0, 2], dtype=dtype))
    assert scores.joint.tolist() == [x[0, 3], x[1, 0], x[2, 2]]


@pytest.mark.parametrize("labels", [torch.tensor([0.0, 1.0]), torch.eye(2), torch.tensor([True, False])], ids=str)
def test_labels_that_are_no_integers_are_an_error_with_its_remedy(labels: Tensor) -> None:
    with pytest.raises(TypeError, match=r"class labels are integers. Convert them with .long\(\)"):
        EnumeratedLabels(2)(LabelCritic(), torch.zeros(2, 2), labels)


def test_labels_that_are_no_tensor_are_an_error() -> None:
    with pytest.raises(TypeError, match="EnumeratedLabels got labels of type NoneType"):
        EnumeratedLabels(2)(LabelCritic(), torch.zeros(2, 2), None)


@pytest.mark.parametrize("shape", [(3,), (2, 1), (1,), ()])
def test_labels_that_are_not_one_for_each_sample_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"got labels of shape .* for 2 samples: there is one label for each"):
        EnumeratedLabels(2)(LabelCritic(), torch.zeros(2, 2), torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("bad", [4, 200, -1])
@pytest.mark.parametrize("prior", [None, [0.1, 0.2, 0.3, 0.4]])
def test_label_outside_the_classes_is_an_error_that_names_the_first(bad: int, prior: list[float] | None) -> None:
    with pytest.raises(ValueError, match=f"EnumeratedLabels got label {bad} at position 1: (its 4 lab|class)"):
        EnumeratedLabels(4, prior)(LabelCritic(), torch.zeros(4, 4), torch.tensor([0, bad, 99, 1]))


def test_label_of_prior_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="Got label 1 at position 2, to which the prior gives probability 0"):
        EnumeratedLabels(3, [0.5, 0.0, 0.5])(LabelCritic(), torch.zeros(3, 3), torch.tensor([0, 2, 1]))


@pytest.mark.parametrize("views", [0, 1, 3])
def test_wrong_number_of_views_is_an_error(views: int) -> None:
    with pytest.raises(ValueError, match=f"Got {views} views? of the batch: EnumeratedLabels takes 2, x, labels."):
        EnumeratedLabels(2)(LabelCritic(), *[torch.zeros(2, 2)] * views)


@pytest.mark.parametrize("outputs", [3, 5, 512])
@pytest.mark.parametrize(
    "critic", [LabelCritic(), CalibratedCritic(CalibratedCritic(LabelCritic()), scale=True)], ids=["", "cal"]
)
def test_encoder_without_an_output_for_each_label_is_an_error(critic, outputs: int) -> None:
    x, pairing = torch.zeros(2, outputs), EnumeratedLabels(4)
    for read in (lambda: pairing(critic, x, torch.tensor([0, 1])), lambda: pairing.predict(critic, x)):
        with pytest.raises(ValueError, match=f"the encoder has {outputs} outputs for the 4 labels"):
            read()


def test_critic_that_gives_other_scores_than_one_for_each_label_is_an_error() -> None:
    class Wrong(AbstractCritic):
        def paired(self, x: Tensor, y: Tensor) -> Tensor:
            return x[:, 0]

        def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match=r"Wrong gave scores of shape \(2, 3\).* takes one for each label, \(2, 4\)"):
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
    ],
    ids=str,
)
def test_prior_that_is_no_law_of_the_classes_is_an_error(prior, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnumeratedLabels(3, prior)


def test_prior_in_float32_of_many_classes_is_a_law() -> None:
    prior = torch.rand(1000).softmax(0)
    x, labels = torch.randn(2, 1000, dtype=torch.float64), torch.tensor([0, 999])
    law = prior.double() / prior.double().sum()
    observed = EnumeratedLabels(1000, prior)(LabelCritic(), x, labels).log_mean_exp()
    torch.testing.assert_close(observed, (x.exp() * law).sum(1).mean().log(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("num_classes", [1, 0, -3])
def test_fewer_than_two_classes_are_an_error(num_classes: int) -> None:
    with pytest.raises(ValueError, match=f"Got num_classes={num_classes}"):
        EnumeratedLabels(num_classes)
