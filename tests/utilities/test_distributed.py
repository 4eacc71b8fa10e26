"""How often processes talk to each other in a training step, and that they say the same in fewer words."""

import math
from collections import Counter

import pytest
import torch
import torch.distributed as dist

from benchmarks import distributed_exactness as script
from lightning_mi import MIEstimationModule, Scores, bounds, critics
from lightning_mi.scores.batch_shard import shard_of
from lightning_mi.training import online_probe as probes
from lightning_mi.utilities.distributed import destroy_process_group, reduce_scatter_rows
from tests.helpers.processes import on_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

CPU = torch.device("cpu")
# All that torch.distributed has; what this package does not call today it may call tomorrow.
CALLS = [name for name in dist.distributed_c10d.__all__ if callable(getattr(dist, name))]
CALLS = [
    n for n in CALLS if n.startswith(("all_", "reduce", "broadcast", "gather", "scatter", "barrier", "send", "recv"))
]


def counted(calls, name):
    call = getattr(dist, name)

    def instead(*args, **kwargs):
        calls[name] += 1
        return call(*args, **kwargs)

    return instead


class Counting:
    """Counts the calls of a process."""

    def __enter__(self):
        self.calls, self.before = Counter(), {name: getattr(dist, name) for name in CALLS}
        for name in CALLS:
            setattr(dist, name, counted(self.calls, name))
        return self

    def __exit__(self, *_):
        for name, call in self.before.items():
            setattr(dist, name, call)

    def of(self, step):
        self.calls.clear()
        result = step()
        return result, self.calls.total()


def _steps(rank):
    found = []
    with Counting() as counting:
        for case in script.cases(regularizer_names=["Squared(log)"]):
            module, batch = script.module_of(case, torch.float64), script.batch_of(case, 12, torch.float64)
            share = tuple(part[6 * rank : 6 * rank + 6] for part in batch)
            output, forward = counting.of(lambda: module.step(share))  # noqa: B023  # called at once
            _, backward = counting.of(output.loss.backward)
            found.append((case.pairing, forward, backward))
        module.pairs.gather = False
        _, local = counting.of(lambda: module.step(share).loss.backward())
    return found, local


# Lengths and refusals, candidates (both ways), a bound's means (both ways); with labels, whether they are there; their
# counts, unless a prior is given.
COLLECTIVES = {
    "AllPairs": (3, 2),
    "TwoViews": (3, 2),
    "SameLabel": (4, 2),
    "EnumeratedLabels": (4, 1),
    "EnumeratedLabels(prior)": (3, 1),
    "Derangement": (2, 1),
    "IndependentMarginal": (2, 1),
}


def test_a_step_has_so_many_collectives_whatever_the_bound(tmp_path):
    for found, local in on_processes(_steps, 2, tmp_path):
        assert len(found) > 100
        for pairing, *counts in found:
            expected = COLLECTIVES.get(pairing, COLLECTIVES[pairing.split("(")[0]])
            assert tuple(counts) == expected, pairing
        assert local == 0


def _probed(rank):
    module = MIEstimationModule(critics.BilinearCritic(4, 4), bounds.DV(), probe=probes.OnlineLinearProbe(4, 4))
    with Counting() as counting:
        batch = (torch.eye(4), torch.eye(4), torch.arange(4))
        return counting.of(lambda: module.step(batch).loss.backward())[1]


def test_labels_of_a_probe_cost_one_more(tmp_path):
    # Without an encoder the candidates take no gradient: one less.
    assert on_processes(_probed, 2, tmp_path) == [5, 5]


# The counts that a pairing works out are those that the processes would have told each other.


def _pools(rank):
    said = []
    for shares in ((4, 4, 4), (8, 3, 0), (0, 2, 7)):
        start = sum(shares[:rank])
        for name in script.PAIRINGS:
            if name == "Derangement" and 1 in shares:
                continue
            case = script.Case("DV", name, "none")
            module, batch = script.module_of(case, torch.float64), script.batch_of(case, 12, torch.float64)
            views = [part[start : start + shares[rank]] for part in batch]
            if name == "IndependentMarginal":  # as many as it likes
                views[2:] = [view[: len(view) // 2] for view in views[2:]]
            count = module.pairs.num_views
            labels = views[count:] if module.pairs.takes_labels else ()
            scores = module.pairs(module.critic, *module.encode(*views[:count]), *labels)
            own = scores._layout.counts()._replace(longest_row=scores.local().num_candidates or 0)
            told = own.all_reduce(CPU)
            worked_out = scores._ranks.counts
            if scores.num_candidates is None or scores._layout.marginals.weighted:
                worked_out = worked_out._replace(longest_row=told.longest_row)
            said.append((name, tuple(worked_out[:5]), tuple(told[:5])))
    return said


def test_counts_that_are_worked_out_are_those_that_would_be_told(tmp_path):
    for said in on_processes(_pools, 3, tmp_path):
        assert len(said) == 3 * len(script.PAIRINGS)
        for name, worked_out, told in said:
            assert worked_out == told, name


# A loss that is another one on each process.


def _own_losses(rank):
    """Weights of the terms that depend on the process; the second process leaves one of them out."""
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.0, -3.0], [0.5, 2.0, 0.0]], dtype=torch.float64)

    def terms(scores):
        means = scores.together(lambda own: (own.joint_mean(), own.log_mean_exp(), own.mean_softplus()))
        return [mean.square() for mean in means]

    own = matrix[3 * rank : 3 * rank + 3].requires_grad_()
    read = terms(Scores.from_matrix(own, diagonal=3 * rank, pooled=True))
    sum(float(weight) * term for weight, term in zip(weights[rank], read, strict=True) if weight != 0).backward()
    whole = matrix.detach().clone().requires_grad_()
    (weights.sum(dim=0) @ torch.stack(terms(Scores.from_matrix(whole)))).backward()
    return own.grad, whole.grad[3 * rank : 3 * rank + 3]


def test_losses_that_differ_between_processes_have_the_gradient_of_their_sum(tmp_path):
    for own, expected in on_processes(_own_losses, 2, tmp_path):
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=0)


def _unused(rank):
    matrix = torch.randn(3, 6, dtype=torch.float64)
    joint, other = (matrix[:, 3 * rank].clone().requires_grad_() for _ in range(2))
    scores = Scores.from_samples(joint, other, pooled=True)
    mean, _ = scores.together(lambda own: (own.joint_mean(), own.log_mean_exp()))
    mean.backward()
    return other.grad


def test_what_nobody_makes_anything_of_is_not_differentiated(tmp_path):
    assert on_processes(_unused, 2, tmp_path) == [None, None]


class _Nothing(torch.autograd.Function):
    """A sum that gives no gradient at all."""

    @staticmethod
    def forward(ctx, x):
        return x.sum()

    @staticmethod
    def backward(ctx, gradient):
        return None


def _nothing_on_the_second(rank):
    rows = torch.ones(2, 3, requires_grad=True)
    everything = shard_of((2, 2)).gather(rows)
    (everything.sum() if rank == 0 else _Nothing.apply(everything)).backward()
    return rows.grad


def test_a_process_without_a_gradient_still_takes_part_in_that_of_the_others(tmp_path):
    for gradient in on_processes(_nothing_on_the_second, 2, tmp_path):
        assert torch.equal(gradient, torch.ones(2, 3))


# Rows of several tensors at once.


def _side_by_side(rank):
    counts = (2, 0, 3)
    share = shard_of(counts)
    start, stop = share.start, share.start + counts[rank]
    whole = (
        torch.arange(10.0, dtype=torch.float64).view(5, 2),
        torch.tensor([2**62 + 1, -7, 0, 5, 2**53 + 1]),
        torch.arange(30.0).view(5, 3, 2).transpose(1, 2).to(torch.bfloat16),
    )
    own = [part[start:stop].clone() for part in whole]
    own = [part.requires_grad_() if part.is_floating_point() else part for part in own]
    first, labels, last = share.gather_all(*own)
    same = all(torch.equal(a, b) for a, b in zip((first, labels, last), whole, strict=True))
    (first.square().sum() * (rank + 1)).backward()
    expected = 2 * 6 * whole[0][start:stop]
    return same, labels.requires_grad, own[0].grad, expected, own[2].grad


def test_tensors_of_any_type_are_gathered_side_by_side(tmp_path):
    for same, differentiable, gradient, expected, of_last in on_processes(_side_by_side, 3, tmp_path):
        assert same
        assert not differentiable
        torch.testing.assert_close(gradient, expected, rtol=0, atol=0)
        assert of_last is None


def _scattered(rank):
    dist.get_backend = lambda *_: "nccl"  # the branch for it, on gloo, which knows that collective too
    rows = (rank + 1) * torch.arange(6.0).view(6, 1)
    equal = reduce_scatter_rows(rows.clone(), (2, 2, 2))
    return equal, reduce_scatter_rows(rows.clone(), (3, 0, 3))


def test_one_s_own_rows_of_a_sum_are_the_same_by_either_collective(tmp_path):
    rows = 6 * torch.arange(6.0).view(6, 1)
    for rank, (equal, uneven) in enumerate(on_processes(_scattered, 3, tmp_path)):
        assert torch.equal(equal, rows[2 * rank : 2 * rank + 2])
        assert torch.equal(uneven, rows.split([3, 0, 3])[rank])


# What may be asked for together.


@pytest.mark.parametrize(
    "read",
    [
        lambda own: (own.joint_mean() - own.log_mean_exp(),),
        lambda own: (own.log_mean_exp(), own.joint_mean() + 0),
        lambda own: (own.joint_mean(), own.log_mean_exp())[:1],
        lambda own: (own.joint,),
    ],
    ids=["combined", "changed", "left out", "no mean"],
)
def test_what_is_asked_for_together_is_handed_on_as_it_is(read):
    scores = Scores.from_matrix(torch.eye(3))
    with pytest.raises(ValueError, match=r"of \d means that were asked for together: they are handed on as they are"):
        scores.together(read)
    assert scores.together(lambda own: (own.joint_mean(),))[0] == 1  # and the scores are as before


def test_together_may_be_asked_within_itself():
    scores = Scores.from_matrix(torch.eye(3, dtype=torch.float64))
    value, rows, joint = scores.together(lambda own: (*own.row_means(), own.joint_mean()))
    assert value.item() == pytest.approx(1 - math.log((math.e + 2) / 3), abs=1e-15)
    assert rows.item() == pytest.approx(1 - value.item(), abs=1e-15)
    assert joint == 1


def test_what_was_read_together_is_known_to_who_asks_again():
    scores = Scores.from_matrix(torch.eye(3, requires_grad=True))
    (read,) = scores.together(lambda own: (own.log_mean_exp(),))
    with torch.no_grad():
        assert scores.log_mean_exp().data_ptr() == read.data_ptr()
        again = scores.together(lambda own: (own.log_mean_exp(), own.log_mean_exp()))
    assert list(again) == [read, read]


def _asked_again(rank):
    matrix = torch.eye(6, dtype=torch.float64)[3 * rank : 3 * rank + 3] * (rank + 1)
    scores = Scores.from_matrix(matrix, diagonal=3 * rank, pooled=True)
    with torch.no_grad():
        together = scores.together(lambda own: (own.log_mean_exp(), own.log_mean_exp()))
        return [*together, scores.log_mean_exp(), scores.local().log_mean_exp()]


def test_a_part_is_never_taken_for_the_sum(tmp_path):
    for found in on_processes(_asked_again, 2, tmp_path):
        assert [value.item() for value in found] == pytest.approx([0.0] * 4, abs=1e-15)  # as all marginal scores are


def _left(rank):
    before = dist.is_initialized()
    destroy_process_group()
    destroy_process_group()  # there is none any more
    after = dist.is_initialized()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # what `on_processes` ends with
    return before, after


def test_a_process_that_leaves_has_no_group(tmp_path):
    assert on_processes(_left, 2, tmp_path) == [(True, False)] * 2
