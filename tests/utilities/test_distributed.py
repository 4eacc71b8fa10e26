"""Collectives: their results, and how many of them a training step makes."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist

from lightning_mi import MIEstimationModule, bounds, critics, pairs
from lightning_mi.training.online_probe import OnlineLinearProbe
from lightning_mi.utilities.distributed import (
    any_rank,
    destroy_process_group,
    gather_objects,
    get_rank,
    rank_generator,
    reduce_scatter_rows,
    standard_deviation,
    world_size,
)
from tests.helpers import ddp_exactness as exactness
from tests.helpers.processes import on_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

CPU = torch.device("cpu")
# Every collective of torch.distributed, also those that this package does not call today.
CALLS = [
    name
    for name in dist.distributed_c10d.__all__
    if callable(getattr(dist, name))
    and name.startswith(("all_", "reduce", "broadcast", "gather", "scatter", "barrier", "send", "recv"))
]


def _counted(calls, name):
    call = getattr(dist, name)

    def count(*args, **kwargs):
        calls[name] += 1
        return call(*args, **kwargs)

    return count


class Counting:
    """Counts the collectives of this rank."""

    def __enter__(self):
        self.calls: Counter[str] = Counter()
        self.before = {name: getattr(dist, name) for name in CALLS}
        for name in CALLS:
            setattr(dist, name, _counted(self.calls, name))
        return self

    def __exit__(self, *_):
        for name, call in self.before.items():
            setattr(dist, name, call)

    def of(self, step):
        self.calls.clear()
        result = step()
        return result, self.calls.total()


# Forward: lengths and errors, candidates, a bound's means; with labels, the check that every rank has them; the counts
# of the labels, unless a prior is given. Backward: candidates and means.
COLLECTIVES = {
    "AllPairs": (3, 2),
    "AllPairs(tiles)": (3, 2),
    "TwoViews": (3, 2),
    "AllPairs(ring)": (2, 1),
    "TwoViews(ring)": (2, 1),
    "SameLabel": (4, 2),
    "SameLabel(exclude)": (4, 2),
    "EnumeratedLabels": (4, 1),
    "EnumeratedLabels(prior)": (3, 1),
    "Derangement": (2, 1),
    "IndependentMarginal": (2, 1),
}
# Bounds with one mean, two, many, and a learned baseline.
CASES = exactness.cases(["InfoNCE", "DV", "SMILE(js)", "TUBA(learned)"], COLLECTIVES, ["Squared-log"])


def _collectives(rank):
    found = []
    with Counting() as counting:
        for case in CASES:
            batch = exactness.batch_of(case, 12, torch.float64)
            module = exactness.module_of(case, torch.float64)
            output, forward = counting.of(lambda: module.step(tuple(part[6 * rank :][:6] for part in batch)))  # noqa: B023  # called at once
            _, backward = counting.of(output.loss.backward)
            found.append((case.pairing, forward, backward))
        module = MIEstimationModule(critics.BilinearCritic(4, 4), bounds.DV(), probe=OnlineLinearProbe(4, 4))
        batch = (torch.eye(4), torch.eye(4), torch.arange(4))
        _, probed = counting.of(lambda: module.step(batch).loss.backward())
        module = MIEstimationModule(critics.BilinearCritic(4, 4), bounds.DV(), pairs=pairs.AllPairs(gather=False))
        _, local = counting.of(lambda: module.step(batch[:2]).loss.backward())
    return found, probed, local


def test_number_of_collectives_does_not_depend_on_the_bound(tmp_path):
    for found, probed, local in on_processes(_collectives, 2, tmp_path):
        for pairing, *counts in found:
            assert tuple(counts) == COLLECTIVES[pairing], pairing
        # The labels of a probe cost one collective; without an encoder the candidates need no gradient.
        assert probed == 5
        assert local == 0


def _counts(rank):
    found = []
    for lengths in ((4, 4, 4), (8, 3, 0), (0, 2, 7)):
        start = sum(lengths[:rank])
        for case in exactness.cases(["DV"], regularizer_names=["none"]):
            if exactness.PAIRINGS[case.pairing].local_pairs and 1 in lengths:
                continue  # one sample has no other to be paired with
            module = exactness.module_of(case, torch.float64)
            views = [part[start : start + lengths[rank]] for part in exactness.batch_of(case, 12, torch.float64)]
            if module.pairs.num_views == 4:  # marginal views may have another length
                views[2:] = [view[: len(view) // 2] for view in views[2:]]
            num_views = module.pairs.num_views
            labels = views[num_views:] if module.pairs.takes_labels else ()
            scores = module.pairs(module.critic, *module.encode(*views[:num_views]), *labels)
            local = scores._layout.counts()._replace(longest_row=scores.local().num_candidates or 0)
            gathered, known = local.all_reduce(CPU), scores._ranks.counts
            if scores.num_candidates is None:
                known = known._replace(longest_row=gathered.longest_row)
            found.append((case.pairing, tuple(known), tuple(gathered)))
    return found


def test_counts_that_pairings_know_equal_the_gathered_ones(tmp_path):
    for found in on_processes(_counts, 3, tmp_path):
        assert len(found) == 3 * len(exactness.PAIRINGS)
        for name, known, gathered in found:
            assert known == gathered, name


def _utilities(rank):
    torch.manual_seed(0)
    seeds = [rank_generator(CPU).initial_seed() for _ in range(20)]
    torch.manual_seed(0)
    streams = torch.rand(2, generator=rank_generator(CPU)), torch.rand(2)
    flags = any_rank(rank == 1, CPU), any_rank(False, CPU)
    deviation = standard_deviation(torch.arange(3.0) if rank else torch.tensor([]))
    return flags, gather_objects({"rank": rank}), seeds, streams, deviation, standard_deviation(torch.ones(1 - rank))


def test_utilities_combine_all_ranks(tmp_path):
    found = on_processes(_utilities, 2, tmp_path)
    for flags, objects, _, _, deviation, single in found:
        assert flags == (True, False)
        assert objects == [{"rank": 0}, {"rank": 1}]
        assert deviation.item() == 1.0
        assert single.isnan()
    (first, (first_stream, first_global)), (second, (second_stream, second_global)) = (result[2:4] for result in found)
    assert not torch.equal(first_stream, second_stream)
    assert torch.equal(first_global, second_global), "the global streams stay equal"
    assert len(set(first) | set(second)) == 40, "no two ranks and steps share a seed"
    assert max(first + second) < 2**32
    assert min(max(first), max(second)) > 2**30


def test_one_rank_communicates_nothing():
    assert not dist.is_initialized()
    assert (any_rank(True, CPU), any_rank(False, CPU)) == (True, False)
    assert gather_objects({"rank": 0}) == [{"rank": 0}]
    assert (get_rank(), world_size(), rank_generator(CPU)) == (0, 1, None)


def _scattered(rank):
    dist.get_backend = lambda *_: "nccl"  # the branch for NCCL, on gloo, which has the collective too
    rows = (rank + 1) * torch.arange(6.0).view(6, 1)
    return reduce_scatter_rows(rows.clone(), (2, 2, 2)), reduce_scatter_rows(rows.clone(), (3, 0, 3))


def test_reduce_scatter_is_the_same_with_either_collective(tmp_path):
    rows = 6 * torch.arange(6.0).view(6, 1)
    for rank, (equal, uneven) in enumerate(on_processes(_scattered, 3, tmp_path)):
        assert torch.equal(equal, rows[2 * rank : 2 * rank + 2])
        assert torch.equal(uneven, rows.split([3, 0, 3])[rank])


def _destroyed(rank):
    before = dist.is_initialized()
    destroy_process_group()
    destroy_process_group()  # without a group it does nothing
    after = dist.is_initialized()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # `on_processes` destroys it
    return before, after


def test_process_group_can_be_destroyed(tmp_path):
    assert on_processes(_destroyed, 2, tmp_path) == [(True, False)] * 2
