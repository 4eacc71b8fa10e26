"""What processes tell each other: numbers, objects, rows in any layout of memory, sums of scores."""

import math

import pytest
import torch

from lightning_mi import Scores
from lightning_mi.critics import InnerProductCritic
from lightning_mi.scores.batch_shard import shard_of
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.utilities.distributed import any_rank, gather_objects, get_rank, rank_generator, world_size
from tests.helpers.processes import on_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

CPU = torch.device("cpu")


def test_what_one_process_says_all_hear(tmp_path):
    def work(rank):
        return any_rank(rank == 1, CPU), any_rank(False, CPU), gather_objects({"rank": rank}), world_size()

    for heard in on_processes(work, 2, tmp_path):
        assert heard == (True, False, [{"rank": 0}, {"rank": 1}], 2)


def test_alone_one_hears_oneself():
    assert (any_rank(True, CPU), any_rank(False, CPU)) == (True, False)
    assert gather_objects({"rank": 0}) == [{"rank": 0}]
    assert (get_rank(), world_size()) == (0, 1)


def test_rows_that_lie_side_by_side_in_memory_are_gathered_as_rows(tmp_path):
    def work(rank):
        rows = (torch.arange(6.0).view(3, 2).T + 10 * rank).requires_grad_()
        everything = shard_of([2, 2]).gather(rows)
        (everything.T @ torch.arange(4.0)).sum().backward()
        return everything.detach(), rows.grad

    for rank, (everything, gradient) in enumerate(on_processes(work, 2, tmp_path)):
        own = torch.arange(6.0).view(3, 2).T
        assert torch.equal(everything, torch.cat([own, own + 10]))
        assert gradient.tolist() == [[4.0 * rank] * 3, [4.0 * rank + 2] * 3]


def test_seeds_of_a_step_are_spread_over_32_bits_and_no_two_processes_share_one(tmp_path):
    def work(rank):
        torch.manual_seed(0)
        return [rank_generator(CPU).initial_seed() for _ in range(20)]

    first, second = (set(seeds) for seeds in on_processes(work, 2, tmp_path))
    assert len(first | second) == 40
    assert max(first | second) < 2**32
    assert min(max(first), max(second)) > 2**30


SHARES = [slice(0, 3), slice(3, 5)]
LAW = torch.tensor([0.4, 0.1, 0.0, 0.3, 0.2], dtype=torch.float64)
REDUCTIONS = {
    "log-mean-exp": lambda scores: scores.log_mean_exp(power=2.0),
    "softplus": lambda scores: scores.mean_softplus(),
    "joint mean": lambda scores: scores.joint_mean(clip=1.0),
    "joint softplus": lambda scores: scores.joint_mean_softplus(),
}


@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_run_over_all_processes_and_local_ones_over_the_share(weighted, tmp_path):
    t = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def scores_of(rows, pooled=False):
        joint = torch.eye(5, dtype=torch.bool)[rows]
        given = {"log_weights": LAW.log()} if weighted else {"marginal": ~joint}
        return Scores.from_matrix(t[rows], joint=joint, **given, pooled=pooled)

    def work(rank):
        pooled = scores_of(SHARES[rank], pooled=True)
        read = [[reduce(scores).item() for reduce in REDUCTIONS.values()] for scores in (pooled, pooled.local())]
        return [*read, pooled.num_candidates, pooled.local().num_candidates]

    expected = [[reduce(scores_of(rows)).item() for reduce in REDUCTIONS.values()] for rows in (slice(5), *SHARES)]
    for rank, (of_all, of_share, *candidates) in enumerate(on_processes(work, 2, tmp_path)):
        assert of_all == pytest.approx(expected[0], abs=1e-14)
        assert of_share == pytest.approx(expected[1 + rank], abs=1e-14)
        assert candidates == ([None, None] if weighted else [5, 5])


def _made(t, rows, **given):
    """The same pairs in the four ways to give them."""
    joint = torch.eye(t.shape[1], dtype=torch.bool)[rows]
    return [
        Scores.from_matrix(t[rows], diagonal=rows.start or 0, **given),
        Scores.from_columns(t[rows], JointColumns.of_diagonal(t[rows], rows.start or 0), **given),
        Scores.from_samples(t[rows][joint], t[rows][~joint], **given),
        Scores.from_columns(
            InnerProductCritic().tiles(t[rows], torch.eye(len(t), dtype=t.dtype)),
            JointColumns.of_diagonal(t[rows], rows.start or 0),
            **given,
        ),
    ]


@pytest.mark.parametrize("shares", [SHARES, [slice(0, 5), slice(5, 5)]], ids=["uneven", "one is empty"])
def test_scores_are_pooled_where_it_is_said_however_they_are_given(shares, tmp_path):
    t = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def work(rank):
        read = []
        for scores in _made(t, shares[rank], pooled=True):
            read.append([scores.num_joint, scores.num_marginal, *(one(scores).item() for one in REDUCTIONS.values())])
        return read

    alone = _made(t, slice(0, 5))[0]
    expected = [5, 20, *(one(alone).item() for one in REDUCTIONS.values())]
    for read in on_processes(work, 2, tmp_path):
        for found in read:
            assert found == pytest.approx(expected, abs=1e-14)


def test_nothing_is_pooled_unless_it_is_said(tmp_path):
    def work(rank):
        made = _made(torch.randn(3, 3), slice(0, 3))
        return [(scores.num_joint, scores.num_marginal, scores.world_size) for scores in made]

    for found in on_processes(work, 2, tmp_path):
        assert found == [(3, 6, 1)] * 4


def test_a_batch_without_scores_is_an_error_but_a_share_of_one_is_none(tmp_path):
    t, nothing = torch.zeros(0, 5), torch.zeros(0)
    makers = [
        lambda **given: Scores.from_matrix(t, **given),
        lambda **given: Scores.from_columns(t, JointColumns.of_diagonal(t), **given),
        lambda **given: Scores.from_samples(nothing, torch.zeros(2), **given),
        lambda **given: Scores.from_samples(torch.zeros(2), nothing, **given),
    ]

    def work(rank, **given):
        said = []
        for make in makers:
            try:
                make(**given)
            except ValueError as error:
                said.append(str(error))
        return said

    for said in [work(0), work(0, pooled=True), *on_processes(work, 2, tmp_path)]:
        assert [text.partition("of shape")[0] for text in said] == [
            "Got `matrix` ",
            "Got `matrix` ",
            "Got `joint` ",
            "Got `marginal` ",
        ]


def test_one_joint_pair_of_all_processes_is_its_own_mean(tmp_path):
    def work(rank):
        joint = torch.zeros(3, 3, dtype=torch.bool)
        joint[0, 0] = rank == 0
        made = Scores.from_matrix(torch.full((3, 3), 7.0), joint=joint, pooled=True, allow_no_joint=True)
        return made.num_joint, made.joint_mean().item()

    assert on_processes(work, 2, tmp_path) == [(1, 7.0)] * 2


def test_a_diagonal_that_ends_before_the_rows_do_is_refused(tmp_path):
    def work(rank):
        Scores.from_matrix(torch.zeros(2, 5), diagonal=3, pooled=True)
        try:
            Scores.from_matrix(torch.zeros(2, 5), diagonal=4, pooled=True)
        except ValueError as error:
            return str(error)

    for said in on_processes(work, 2, tmp_path):
        assert said.startswith("Got scores of shape (2, 5) and diagonal=4: without masks the diagonal holds the joint")


def test_a_share_without_pairs_adds_nothing(tmp_path):
    t = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def work(rank):
        scores = Scores.from_matrix(t if rank == 0 else t[:0], diagonal=3 * rank, pooled=True)
        low, high = scores.extremes()
        return scores.log_mean_exp().item(), scores.joint_mean().item(), low.item(), high.item()

    alone = Scores.from_matrix(t)
    expected = (alone.log_mean_exp().item(), alone.joint_mean().item())
    (first, second) = on_processes(work, 2, tmp_path)
    assert first == pytest.approx((*expected, t.min().item(), t.max().item()), abs=1e-15)
    assert second == pytest.approx((*expected, math.inf, -math.inf), abs=1e-15)
