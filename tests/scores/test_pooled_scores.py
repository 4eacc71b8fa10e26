"""Scores that are shards of a batch: counts, reductions and gradients over all ranks."""

import math

import pytest
import torch

from lightning_mi import Scores, bounds, critics, pairs
from lightning_mi.critics import InnerProductCritic
from lightning_mi.metrics import EffectiveSampleFraction, MutualInformation, StandardError
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.pair_functions import SquaredSigmoid
from tests.helpers.processes import on_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SHARDS = [slice(0, 3), slice(3, 5)]
LAW = torch.tensor([0.4, 0.1, 0.0, 0.3, 0.2], dtype=torch.float64)
REDUCTIONS = {
    "log-mean-exp": lambda scores: scores.log_mean_exp(power=2.0),
    "softplus": lambda scores: scores.mean_softplus(),
    "shifted softplus": lambda scores: scores.mean_softplus(1.3),
    "Brier score": lambda scores: scores.mean_over_marginal(SquaredSigmoid(0.4)),
    "joint log-mean-exp": lambda scores: scores.joint_log_mean_exp(-0.5),
    "joint mean": lambda scores: scores.joint_mean(clip=1.0),
    "joint softplus": lambda scores: scores.joint_mean_softplus(),
}


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_run_over_all_ranks_and_local_ones_do_not(weighted, tmp_path):
    t = drawn(5, 5)

    def scores_of(rows, pooled=False):
        joint = torch.eye(5, dtype=torch.bool)[rows]
        given = {"log_weights": LAW.log()} if weighted else {"marginal": ~joint}
        return Scores.from_matrix(t[rows], joint=joint, **given, pooled=pooled)

    def work(rank):
        pooled = scores_of(SHARDS[rank], pooled=True)
        read = [[reduce(scores).item() for reduce in REDUCTIONS.values()] for scores in (pooled, pooled.local())]
        return [*read, pooled.num_candidates, pooled.local().num_candidates]

    expected = [[reduce(scores_of(rows)).item() for reduce in REDUCTIONS.values()] for rows in (slice(5), *SHARDS)]
    for rank, (over_ranks, local, *candidates) in enumerate(on_processes(work, 2, tmp_path)):
        assert over_ranks == pytest.approx(expected[0], abs=1e-14)
        assert local == pytest.approx(expected[1 + rank], abs=1e-14)
        assert candidates == ([None, None] if weighted else [5, 5])


def every_form(t, rows, **given):
    """The same pairs from a matrix, from columns, from two lists and from tiles."""
    joint = torch.eye(t.shape[1], dtype=torch.bool)[rows]
    columns = JointColumns.of_diagonal(t[rows], rows.start or 0)
    return [
        Scores.from_matrix(t[rows], diagonal=rows.start or 0, **given),
        Scores.from_columns(t[rows], columns, **given),
        Scores.from_samples(t[rows][joint], t[rows][~joint], **given),
        Scores.from_columns(InnerProductCritic().tiles(t[rows], torch.eye(len(t), dtype=t.dtype)), columns, **given),
    ]


@pytest.mark.parametrize("shards", [SHARDS, [slice(0, 5), slice(5, 5)]], ids=["uneven", "one is empty"])
def test_every_form_of_scores_is_pooled_if_asked(shards, tmp_path):
    t = drawn(5, 5, seed=1)

    def work(rank):
        pooled = [
            [scores.num_joint, scores.num_marginal, *(reduce(scores).item() for reduce in REDUCTIONS.values())]
            for scores in every_form(t, shards[rank], pooled=True)
        ]
        local = [
            [scores.num_joint, scores.num_marginal, scores.world_size] for scores in every_form(t[:3, :3], slice(0, 3))
        ]
        low, high = every_form(t, shards[rank], pooled=True)[0].extremes()
        return pooled, local, low.item(), high.item()

    whole = every_form(t, slice(0, 5))[0]
    expected = [5, 20, *(reduce(whole).item() for reduce in REDUCTIONS.values())]
    for rank, (pooled, local, low, high) in enumerate(on_processes(work, 2, tmp_path)):
        assert all(found == pytest.approx(expected, abs=1e-14) for found in pooled)
        assert local == [[3, 6, 1]] * 4
        values = t[shards[rank]]
        assert low == (values.min().item() if len(values) else math.inf)
        assert high == (values.max().item() if len(values) else -math.inf)


def _same_label(rank):
    """Labels 0 1 2 | 0 0 3 4 over two ranks: joint pairs lie across them, and one shard has none within."""
    labels, rows = torch.tensor([0, 1, 2, 0, 0, 3, 4]), slice(0, 3) if rank == 0 else slice(3, 7)
    scores = pairs.SameLabel()(critics.InnerProductCritic(), drawn(7, 2)[rows], labels[rows])
    return [
        [found.num_joint, found.num_marginal, found.num_candidates, found.world_size]
        for found in (scores, scores.local())
    ]


def test_counts_of_same_label_pairs_are_global_and_local(tmp_path):
    (first, first_local), (second, second_local) = on_processes(_same_label, 2, tmp_path)
    assert first == second == [6, 42, 6, 2]
    assert first_local == [2, 18, 6, 1]
    assert second_local == [4, 24, 6, 1]


def _not_gathered(rank):
    x = drawn(4, 2, seed=rank)
    pairings = (pairs.AllPairs().eval(), pairs.AllPairs(gather=False))
    made = [pairing(critics.InnerProductCritic(), x, x) for pairing in pairings]
    return [[scores.num_marginal, scores.world_size] for scores in made]


def test_evaluation_and_gather_false_pair_within_ranks(tmp_path):
    assert on_processes(_not_gathered, 2, tmp_path) == [[[12, 1], [12, 1]]] * 2


def _metrics(rank):
    bound, found = bounds.DV(), []
    kinds = [(metric, average) for metric in (MutualInformation, StandardError) for average in ("micro", "macro")]
    whole = [metric(bound, average, sync_on_compute=False) for metric, average in kinds]
    pooled = [metric(bound, average) for metric, average in kinds]
    fractions = EffectiveSampleFraction(sync_on_compute=False), EffectiveSampleFraction()
    for matrix in drawn(3, 6, 6):
        first, count = (0, 4) if rank == 0 else (4, 2)
        shard = Scores.from_matrix(matrix[first : first + count], diagonal=first, pooled=True)
        batch = Scores.from_matrix(matrix)
        for metrics, scores, fraction in ((whole, batch, fractions[0]), (pooled, shard, fractions[1])):
            fraction.update(scores)
            for metric in metrics:
                metric.update(bound(scores), scores)
    for single, many in zip(whole, pooled, strict=True):
        found.append((single.compute(), many.compute()))
    return [*found, (fractions[0].compute(), fractions[1].compute())]


def test_metrics_count_a_pooled_batch_once(tmp_path):
    for found in on_processes(_metrics, 2, tmp_path):
        for expected, actual in found:
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def _errors(rank, **given):
    """Batches and shards without scores, and a diagonal that ends before the rows."""
    t, nothing = torch.zeros(0, 5), torch.zeros(0)
    makers = [
        lambda: Scores.from_matrix(t, **given),
        lambda: Scores.from_columns(t, JointColumns.of_diagonal(t), **given),
        lambda: Scores.from_samples(nothing, torch.zeros(2), **given),
        lambda: Scores.from_samples(torch.zeros(2), nothing, **given),
        lambda: Scores.from_matrix(torch.zeros(2, 5), diagonal=4, pooled=True),
    ]
    messages = []
    for make in makers:
        try:
            make()
        except ValueError as error:
            messages.append(str(error).partition("of shape")[0])
    return messages


def test_empty_batches_are_an_error_on_every_rank(tmp_path):
    for messages in [_errors(0), _errors(0, pooled=True), *on_processes(_errors, 2, tmp_path)]:
        assert messages == ["Got `matrix` ", "Got `matrix` ", "Got `joint` ", "Got `marginal` ", "Got scores "]


def _one_joint_pair(rank):
    joint = torch.zeros(3, 3, dtype=torch.bool)
    joint[0, 0] = rank == 0
    made = Scores.from_matrix(torch.full((3, 3), 7.0), joint=joint, pooled=True, allow_no_joint=True)
    return made.num_joint, made.joint_mean().item()


def test_single_joint_pair_of_all_ranks_is_the_mean(tmp_path):
    assert on_processes(_one_joint_pair, 2, tmp_path) == [(1, 7.0)] * 2


def _rank_losses(rank):
    """Losses with weights that depend on the rank; the second rank omits one term."""
    matrix = drawn(6, 6)
    weights = torch.tensor([[1.0, 0.0, -3.0], [0.5, 2.0, 0.0]], dtype=torch.float64)

    def terms(scores):
        means = scores.together(lambda local: (local.joint_mean(), local.log_mean_exp(), local.mean_softplus()))
        return [mean.square() for mean in means]

    shard = matrix[3 * rank : 3 * rank + 3].clone().requires_grad_()
    read = terms(Scores.from_matrix(shard, diagonal=3 * rank, pooled=True))
    sum(float(weight) * term for weight, term in zip(weights[rank], read, strict=True) if weight != 0).backward()
    whole = matrix.clone().requires_grad_()
    (weights.sum(dim=0) @ torch.stack(terms(Scores.from_matrix(whole)))).backward()
    return shard.grad, whole.grad[3 * rank : 3 * rank + 3]


def test_different_losses_give_the_gradient_of_their_sum(tmp_path):
    for gradient, expected in on_processes(_rank_losses, 2, tmp_path):
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def _unused(rank):
    matrix = drawn(3, 6)
    joint, other = (matrix[:, 3 * rank].clone().requires_grad_() for _ in range(2))
    scores = Scores.from_samples(joint, other, pooled=True)
    mean, _ = scores.together(lambda local: (local.joint_mean(), local.log_mean_exp()))
    mean.backward()
    return other.grad


def test_mean_that_no_rank_uses_gets_no_gradient(tmp_path):
    assert on_processes(_unused, 2, tmp_path) == [None, None]


def _repeated(rank):
    matrix = torch.eye(6, dtype=torch.float64)[3 * rank : 3 * rank + 3] * (rank + 1)
    scores = Scores.from_matrix(matrix, diagonal=3 * rank, pooled=True)
    with torch.no_grad():
        together = scores.together(lambda local: (local.log_mean_exp(), local.log_mean_exp()))
        return [*together, scores.log_mean_exp(), scores.local().log_mean_exp()]


def test_repeated_reductions_are_all_reduced(tmp_path):
    for found in on_processes(_repeated, 2, tmp_path):
        assert [value.item() for value in found] == pytest.approx([0.0] * 4, abs=1e-15)  # all marginal scores are 0


@pytest.mark.parametrize(
    "read",
    [
        lambda local: (local.joint_mean() - local.log_mean_exp(),),
        lambda local: (local.log_mean_exp(), local.joint_mean() + 0),
        lambda local: (local.joint_mean(), local.log_mean_exp())[:1],
        lambda local: (local.joint,),
    ],
    ids=["combined", "changed", "left out", "no mean"],
)
def test_together_rejects_anything_but_unchanged_means(read):
    scores = Scores.from_matrix(torch.eye(3))
    with pytest.raises(ValueError, match=r"Got \d tensors for \d means.*Return all means, unchanged"):
        scores.together(read)
    assert scores.together(lambda local: (local.joint_mean(),))[0] == 1  # the scores are as before


def test_together_can_be_nested():
    scores = Scores.from_matrix(torch.eye(3, dtype=torch.float64))
    value, rows, joint = scores.together(lambda local: (*local.row_means(), local.joint_mean()))
    assert value.item() == pytest.approx(1 - math.log((math.e + 2) / 3), abs=1e-15)
    assert rows.item() == pytest.approx(1 - value.item(), abs=1e-15)
    assert joint == 1


def test_one_rank_is_not_pooled():
    scores = Scores.from_matrix(torch.eye(3), pooled=True)
    assert (scores.world_size, scores.num_marginal) == (1, 6)
