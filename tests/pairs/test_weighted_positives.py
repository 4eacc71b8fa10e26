"""SameId, OverlappingLabels and SameLabel by anchor: other bounds, known values, ignored labels, invalid input."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mi import MILoss, Scores, bounds, metrics, regularizers
from lightning_mi.critics import BilinearCritic, InnerProductCritic
from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.pairs import OverlappingLabels, SameId, SameLabel
from tests.helpers.loops import FixedCritic
from tests.helpers.processes import on_processes

# Python 3.12 and later warn of every fork of a process with threads; gloo on one thread forks well.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

X_IDS, Y_IDS = [1, 2, 2, 6], [2, 1, 1, 9, 2]
IDS = torch.tensor(X_IDS + Y_IDS)
LABELS = torch.tensor([4, 4, 4, 7, 7, 1])
MULTI_HOT = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]])


def views(n: int) -> Tensor:
    return torch.zeros(n, 2, dtype=torch.float64)


def terms_by_loop(joint: list[tuple[float, float]], marginal: list[float]) -> dict[str, float]:
    """DV, NWJ, JS and Hellinger from weighted joint scores and marginal scores."""

    def mean_p(f) -> float:
        return math.fsum(w * f(t) for w, t in joint) / math.fsum(w for w, _ in joint)

    def mean_q(f) -> float:
        return math.fsum(f(t) for t in marginal) / len(marginal)

    softplus = mean_p(lambda t: math.log1p(math.exp(-t))) + mean_q(lambda t: math.log1p(math.exp(t)))
    halves = mean_p(lambda t: math.exp(-t / 2)), mean_q(lambda t: math.exp(t / 2))
    return {
        "DV": mean_p(lambda t: t) - math.log(mean_q(math.exp)),
        "NWJ": mean_p(lambda t: t) - mean_q(lambda t: math.exp(t - 1)),
        "JS": -softplus,
        "Hellinger": 2 - sum(halves),
    }


def objectives(scores: Scores) -> dict[str, float]:
    made = (bounds.DV(), bounds.NWJ(cap=None), bounds.JS(), bounds.Hellinger(cap=None))
    return {type(bound).__name__: bound(scores).objective.item() for bound in made}


def test_bounds_without_rows_weigh_ids_as_rows_do() -> None:
    matrix = np.random.default_rng(0).normal(size=(4, 5))
    joint, marginal = [], []
    for own, others, part in ((X_IDS, Y_IDS, matrix), (Y_IDS, X_IDS, matrix.T)):
        rows = [i for i, anchor in enumerate(own) if anchor in others]
        for i, anchor in enumerate(own):
            found = [j for j, other in enumerate(others) if other == anchor]
            joint += [(1 / (len(found) * len(rows)), part[i, j]) for j in found]
            marginal += [part[i, j] for j, other in enumerate(others) if other != anchor]
    scores = SameId()(FixedCritic(torch.tensor(matrix)), views(4), views(5), IDS)
    assert objectives(scores) == pytest.approx(terms_by_loop(joint, marginal), abs=1e-12)
    assert scores.num_marginal == len(marginal)


def test_ids_without_repetition_give_two_directions() -> None:
    matrix = torch.randn(4, 4, dtype=torch.float64)
    terms = bounds.InfoNCE()(SameId()(FixedCritic(matrix), views(4), views(4), torch.arange(4)))
    mean = (matrix.log_softmax(1) + matrix.log_softmax(0)).diagonal().mean() / 2 + math.log(4)
    assert terms.value.item() == pytest.approx(mean.item(), abs=1e-13)


def test_other_positives_have_no_gradient_as_negatives() -> None:
    """Of a joint pair, whose row holds another joint pair, the loss does not depend on the other pair's score."""
    matrix = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    scores = SameId()(FixedCritic(matrix), views(4), views(5), IDS)
    ratio = bounds.InfoNCE().log_ratio(scores)
    pairs = list(zip(scores.joint_rows.tolist(), scores.joint_columns.tolist(), strict=True))
    assert pairs[:2] == [(0, 1), (0, 2)]
    (gradient,) = torch.autograd.grad(ratio[0], matrix)
    assert gradient[0, 1] > 0
    assert gradient[0, 2] == 0
    assert (gradient[0, [0, 3, 4]] < 0).all()


def test_ceiling_counts_one_positive_and_the_other_ids() -> None:
    matrix = 900 * (IDS[:4, None] == IDS[4:]).double()
    scores = SameId()(FixedCritic(matrix), views(4), views(5), IDS)
    logs = (math.log(4) + 2 * math.log(4)) / 3, (2 * math.log(3) + 2 * math.log(4)) / 4
    assert scores.row_ceiling().item() == pytest.approx(sum(logs) / 2, abs=1e-12)
    assert bounds.InfoNCE()(scores).value.item() == pytest.approx(sum(logs) / 2, abs=1e-12)


@pytest.mark.parametrize("weights", ["equal", "jaccard"])
def test_bounds_without_rows_weigh_overlap(weights) -> None:
    t = np.random.default_rng(1).normal(size=(4, 4))
    shares = {"equal": [1.0, 0.5, 0.5, 1.0], "jaccard": [1.0, (1 / 3) / (5 / 6), (1 / 2) / (5 / 6), 1.0]}[weights]
    joint = [(share, t[i, j]) for share, (i, j) in zip(shares, [(0, 1), (1, 0), (1, 2), (2, 1)], strict=True)]
    marginal = [t[i, j] for i in range(4) for j in range(4) if i != j]
    scores = OverlappingLabels(weights)(FixedCritic(torch.tensor(t)), views(4), MULTI_HOT)
    assert objectives(scores) == pytest.approx(terms_by_loop(joint, marginal), abs=1e-12)
    assert scores.joint_weight == pytest.approx(3)


def test_one_label_each_equals_same_label_by_anchor() -> None:
    matrix = torch.randn(6, 6, dtype=torch.float64)
    multi_hot = (LABELS[:, None] == LABELS.unique()).float()
    overlap = OverlappingLabels()(FixedCritic(matrix), views(6), multi_hot)
    by_label = SameLabel(weighting="anchor")(FixedCritic(matrix), views(6), LABELS)
    for bound in (bounds.InfoNCE(), bounds.DV()):
        torch.testing.assert_close(torch.stack(bound(overlap)), torch.stack(bound(by_label)))


def test_perfect_critic_by_anchor_gives_the_maximum() -> None:
    """Classes of 3, 2 and 1 samples; the critic is the exact log density ratio of pairs without replacement."""
    counts = {4: 3, 7: 2}

    class Data:
        def class_counts(self, split: str | None = None) -> Tensor:
            return torch.tensor([1, 3, 2])

        def true_mi(self) -> float:
            return -sum(c / 6 * math.log(c / 6) for c in (1, 2, 3))

    matrix = torch.full((6, 6), -1e4, dtype=torch.float64)
    for i, label in enumerate(LABELS.tolist()):
        for j, other in enumerate(LABELS.tolist()):
            if label == other and label in counts:  # 1 / (5 anchors) / (positives), over 1 / (30 pairs)
                matrix[i, j] = math.log(30 / 5 / (counts[label] - 1))
    pairing = SameLabel(weighting="anchor")
    value = bounds.DV()(pairing(FixedCritic(matrix), views(6), LABELS)).value.item()
    assert value == pytest.approx((3 * math.log(6 / 2) + 2 * math.log(6 / 1)) / 5, abs=1e-12)
    assert pairing.max_value(Data(), bounds.DV()) == pytest.approx(value, abs=1e-12)
    assert pairing.true_value(Data(), bounds.DV()) == pytest.approx(Data().true_mi())
    assert SameLabel(num_views=2).true_value(Data(), bounds.DV()) is None


def test_batches_count_by_their_anchors() -> None:
    """Micro averages weigh batches by anchors, not by joint pairs: 2 of one class and 6 of another."""
    pairing, bound = SameLabel(weighting="anchor"), bounds.InfoNCE()
    batches, values = [], []
    for labels in ([0, 0, 1, 2], [3, 3, 3, 3, 3, 3]):
        matrix = torch.randn(len(labels), len(labels), dtype=torch.float64)
        batches.append(pairing(FixedCritic(matrix), views(len(labels)), torch.tensor(labels)))
        values.append(bound(batches[-1]).value.item())
    value = metrics.functional.mutual_information(bound, batches).value.item()
    assert value == pytest.approx((2 * values[0] + 6 * values[1]) / 8, abs=1e-12)


def test_weights_over_ranks_need_no_known_counts(tmp_path) -> None:
    matrix = torch.arange(12.0).view(4, 3).double()
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.5], [2.0, 0.0, 0.0]])

    def on_rank(rank):
        rows = slice(0, 1) if rank == 0 else slice(1, 4)
        scores = Scores.from_matrix(matrix[rows], joint=weights[rows], pooled=True)
        local = scores.local().joint_mean().item()
        return scores.joint_mean().item(), scores.joint_log_mean_exp(1.0).item(), scores.joint_weight, local

    mean = float((weights * matrix).sum() / 6.5)
    log_mean = math.log(float((weights * matrix.exp()).sum()) / 6.5)
    for rank, result in enumerate(on_processes(on_rank, 2, tmp_path)):
        local = [0.0, (3 * 4 + 0.5 * 8 + 2 * 9) / 5.5][rank]
        assert result == pytest.approx((mean, log_mean, 6.5, local), abs=1e-12)


def test_ignored_samples_take_no_part() -> None:
    matrix, labels = torch.randn(6, 6, dtype=torch.float64), torch.tensor([4, -100, 4, 7, 7, -100])
    kept = labels != -100

    class Rows(FixedCritic):
        def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
            return self.matrix[x[:, 0].long()][:, y[:, 0].long()]

    x = torch.arange(6.0)[:, None]
    ignoring = SameLabel(ignore_index=-100)(Rows(matrix), x, labels)
    expected = SameLabel()(FixedCritic(matrix[kept][:, kept]), x[kept], labels[kept])
    assert (ignoring.num_joint, ignoring.num_marginal) == (4, 12)
    torch.testing.assert_close(torch.stack(bounds.InfoNCE()(ignoring)), torch.stack(bounds.InfoNCE()(expected)))


def test_regularizer_and_evaluation_accept_weighted_pairs() -> None:
    """A batch of one id or without overlap has no loss in evaluation, but is no error."""
    critic = BilinearCritic(2, 2).double()
    loss = MILoss(critic, bounds.DV(), SameId(), regularizers.Squared(weight=0.1))
    x = torch.randn(5, 2, dtype=torch.float64)
    ids = torch.tensor([0, 0, 1, 1, 2])
    loss(x, x, ids).backward()
    assert critic.weight.grad.isfinite().all()
    loss.eval()
    with pytest.warns(MINumericalWarning, match="without marginal pairs"):
        assert loss.compute(x, x, torch.zeros(5, dtype=torch.long)).terms.value.isnan()
    with pytest.warns(MINumericalWarning, match="without joint pairs"):
        assert loss.compute(x, x, torch.arange(10)).terms.value.isnan()
    overlapping = MILoss(BilinearCritic(2, 2).double(), bounds.InfoNCE(), OverlappingLabels()).eval()
    with pytest.warns(MINumericalWarning, match="without joint pairs"):
        assert overlapping.compute(x, torch.eye(5)).terms.value.isnan()


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.zeros(4), TypeError, "SameId got ids of type float32: ids are a tensor of integers"),
        ([1, 2, 3, 4], TypeError, "SameId got ids of type list"),
        (torch.arange(3), ValueError, r"ids of shape \(3,\) for 4 x and 4 y: .* \(4,\) for x and y alike, or \(8,\)"),
        (torch.arange(4)[:, None], ValueError, r"ids of shape \(4, 1\) for 4 x and 4 y"),
        (torch.full((4,), 3), ValueError, "Got a batch of 4 x and 4 y that all have id 3: .* Raise the batch size"),
        (torch.arange(8), ValueError, "Got 4 x and 4 y without a common id: no two are a joint pair"),
    ],
    ids=str,
)
def test_invalid_ids_are_errors(ids, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SameId()(InnerProductCritic(), views(4), views(4), ids)


def test_ids_of_views_of_different_lengths_are_counted() -> None:
    with pytest.raises(ValueError, match=r"ids of shape \(4,\) for 4 x and 3 y: .* of shape \(7,\) for x and then y"):
        SameId()(InnerProductCritic(), views(4), views(3), torch.arange(4))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.tensor([0, 1, 1, 2]), ValueError, r"labels of shape \(4,\) for 4 samples: .* pairs\.SameLabel\(\)"),
        (torch.zeros(3, 2), ValueError, r"labels of shape \(3, 2\) for 4 samples: .* \(4, C\)"),
        (torch.full((4, 2), 0.7), ValueError, r"labels other than 0 and 1: .* labels > 0\.5"),
        (None, TypeError, "labels of type NoneType"),
        (torch.zeros(4, 3), ValueError, "Got 4 samples of which no two share a label"),
    ],
    ids=str,
)
def test_invalid_multi_hot_labels_are_errors(labels, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        OverlappingLabels()(InnerProductCritic(), views(4), labels)


def test_invalid_options_and_views_of_same_label_are_errors() -> None:
    with pytest.raises(ValueError, match="Got weighting='row': it is one of 'pair', 'anchor'"):
        SameLabel(weighting="row")
    with pytest.raises(ValueError, match="Got weights='cosine': it is one of 'equal', 'jaccard'"):
        OverlappingLabels("cosine")
    with pytest.raises(ValueError, match=r"Got 1 samples with another label than ignore_index=-1: .* Raise"):
        SameLabel(ignore_index=-1)(InnerProductCritic(), views(3), torch.tensor([-1, 2, -1]))
    with pytest.raises(ValueError, match=r"Got views of shapes \(3, 2\), \(3, 1\): SameLabel scores every view"):
        SameLabel(num_views=2)(InnerProductCritic(), views(3), views(3)[:, :1], torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="SameLabel takes 3, x, y, labels"):
        SameLabel(num_views=2)(InnerProductCritic(), views(3), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("gather", [True, False])
def test_bad_ids_of_one_rank_raise_on_all(gather: bool, tmp_path) -> None:
    def on_rank(rank):
        found = []
        for pairing, good, bad in (
            (SameId(gather=gather), torch.arange(4), torch.zeros(4)),
            (OverlappingLabels(gather=gather), torch.eye(4), torch.ones(3, 2)),
        ):
            batch = [views(4)] * (pairing.num_views or 0)
            try:
                pairing(InnerProductCritic(), *batch, bad if rank else good)
            except (TypeError, ValueError) as error:
                found.append(str(error))
        return found

    first, second = on_processes(on_rank, 2, tmp_path)
    assert len(first) == len(second) == 2
    assert all("Rank 1" in message for message in first)
    assert "float32" in second[0]
    assert "(3, 2)" in second[1]
