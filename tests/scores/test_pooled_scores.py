"""What processes tell each other of a batch: shares of any length, and errors on all of them alike."""

import re
import time
from functools import partial

import pytest
import torch
import torch.distributed as dist

from lightning_mi import MIEstimationModule, Scores, bounds, critics, pairs
from lightning_mi.metrics import EffectiveSampleFraction, MutualInformation, StandardError
from lightning_mi.scores.batch_shard import gather, shard_of
from lightning_mi.training import online_probe as probes
from lightning_mi.utilities.distributed import all_gather_ints, rank_generator, standard_deviation
from tests.helpers.processes import on_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

CPU = torch.device("cpu")


def refused(make, views_of, critic=critics.InnerProductCritic):
    """What each process says to the views that it gets, and how long that took; all then agree on one more number."""

    def work(rank):
        start = time.monotonic()
        try:
            make()(critic(), *views_of(rank))
            said = ""
        except (TypeError, ValueError) as error:
            said = str(error)
        again = all_gather_ints([rank], CPU)  # nobody is left behind in another collective
        return said, time.monotonic() - start, [rank for (rank,) in again]

    return work


def pairs_of(*lengths, width=3):
    return lambda rank: (torch.ones(lengths[rank], width), torch.ones(lengths[rank], width))


# fmt: off
REFUSED = {
    "too few in all": (pairs.AllPairs, pairs_of(1, 0), "Got a batch of 1: marginal pairs combine different samples"),
    "none at all": (pairs.TwoViews, pairs_of(0, 0), "Got a batch of 0"),
    "a shuffle of one": (pairs.Derangement, pairs_of(8, 1), "Got shards of 8, 1 samples on the ranks: Der"),
    "unlike views": (pairs.AllPairs, lambda rank: (torch.ones(8, 3), torch.ones(8 - 3 * rank, 3)),
                     "Got 8 x and 5 y on rank 1: row i of both is one joint pair"),
    "unlike marginal views": (pairs.IndependentMarginal,
                              lambda rank: (*pairs_of(4, 4)(rank), torch.ones(5, 3), torch.ones(5 + rank, 3)),
                              "Got 5 marginal x and 6 marginal y on rank 1: row i of both is one marginal pair"),
    "unlike widths": (pairs.AllPairs, lambda rank: pairs_of(4, 4, width=3 + rank)(rank),
                      r"Got views of \[4, 4\] numbers a row on rank 1 and of \[3, 3\] on rank 0"),
    "unlike dtypes": (pairs.AllPairs, lambda rank: [view.to([torch.float32, torch.float64][rank])
                                                    for view in pairs_of(4, 4)(rank)],
                      "Got views of another dtype on rank 1 than on rank 0"),
    "no marginal pair": (lambda: pairs.SameLabel(exclude_same_label=True),
                         lambda rank: (torch.ones(3, 2), torch.tensor([1, 1, 1])), "Got a batch of 6 samples that all"),
    "no pair in two lists": (pairs.IndependentMarginal, lambda rank: (*pairs_of(2, 3)(rank), *pairs_of(0, 0)(rank)),
                             "Got 5 joint and 0 marginal pairs over all processes"),
}
# fmt: on


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_paired_is_an_error_on_every_process_at_once(case, tmp_path):
    make, views_of, message = REFUSED[case]
    for said, seconds, agreed in on_processes(refused(make, views_of), 2, tmp_path):
        assert re.match(message, said), said
        assert seconds < 5
        assert agreed == [0, 1]


def labels_of(*labels):
    """Samples and labels that suit the first process alone."""
    return lambda rank: (torch.ones(3, 5), torch.tensor(labels[rank]))


UNLABELLED = labels_of([0, 1, 0], [1, 1, -1])
OUT_OF_RANGE, FLOATING, SHORT = labels_of([0, 1, 4], [0, 5, 1]), labels_of([0, 1, 4], [0.0, 1.0, 4.0]), [[0, 1, 4], [0]]
# fmt: off
REFUSED_LABELS = {
    "out of range": (lambda: pairs.EnumeratedLabels(5), OUT_OF_RANGE, "EnumeratedLabels got label 5 at position 1"),
    "local and out of range": (lambda: pairs.EnumeratedLabels(5, gather=False), OUT_OF_RANGE,
                               "EnumeratedLabels got label 5"),
    "impossible": (lambda: pairs.EnumeratedLabels(5, prior=[0.2, 0.2, 0.2, 0, 0.4]), labels_of([0, 1, 4], [0, 3, 1]),
                   "Got label 3 at position 1, with prior probability 0"),
    "floating": (lambda: pairs.EnumeratedLabels(5), FLOATING, "EnumeratedLabels got labels of type float32"),
    "unlabelled": (pairs.SameLabel, UNLABELLED, "SameLabel got label -1 at position 2: class labels are at least 0"),
    "local and unlabelled": (lambda: pairs.SameLabel(gather=False), UNLABELLED, "SameLabel got label -1"),
    "floating, same label": (pairs.SameLabel, FLOATING, "SameLabel got labels of type float32"),
    "too few": (pairs.SameLabel, labels_of(*SHORT), r"SameLabel got labels of shape \(1,\) for 3 samples"),
}
# fmt: on


@pytest.mark.parametrize("case", REFUSED_LABELS)
def test_labels_that_one_process_cannot_take_are_an_error_on_every_process_at_once(case, tmp_path):
    make, views_of, message = REFUSED_LABELS[case]
    other = "Process 1 refused its share of the batch"
    critic = critics.InnerProductCritic if isinstance(make(), pairs.SameLabel) else critics.LabelCritic
    for rank, (said, seconds, agreed) in enumerate(on_processes(refused(make, views_of, critic), 2, tmp_path)):
        assert re.match(message if rank else other, said), said
        assert seconds < 5
        assert agreed == [0, 1]


def module_refused(probe, batch_of):
    """The same of a module in training."""

    def work(rank):
        pairing = pairs.AllPairs() if probe else pairs.SameLabel()
        given = {"probe": probes.OnlineLinearProbe(5, 5)} if probe else {}
        module = MIEstimationModule(critics.BilinearCritic(5, 5), bounds.DV(), pairing, **given)
        start, said = time.monotonic(), ""
        try:
            module.step(batch_of(rank))
        except (TypeError, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
        return said, time.monotonic() - start, [rank for (rank,) in all_gather_ints([rank], CPU)]

    return work


MISSING = r"TypeError: \w+ needs labels, but the batch holds"


@pytest.mark.parametrize(
    ("probe", "labels", "message"),
    [
        (False, [[0, 1, 0], [0.0, 1.0, 0.0]], MISSING),
        (True, [[0, 1, 0], [0.0, 1.0, 0.0]], MISSING),
        (True, [[0, 1, 0], [0, 5, 0]], "ValueError: OnlineLinearProbe got label 5 at position 1: its 5"),
    ],
)
def test_so_are_those_that_a_module_misses_on_one_process(probe, labels, message, tmp_path):
    views = [torch.eye(5)[:3]] * (2 if probe else 1)
    work = module_refused(probe, lambda rank: (*views, torch.tensor(labels[rank])))
    for rank, (said, seconds, agreed) in enumerate(on_processes(work, 2, tmp_path)):
        assert re.match(message if rank else "ValueError: Process 1 refused", said), said
        assert seconds < 5
        assert agreed == [0, 1]


def _labels(rank):
    """Labels 0 1 2 | 0 0 3 4 over two processes: joint pairs lie across them, and one share has none within."""
    torch.manual_seed(0)
    x = torch.randn(7, 2, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 0, 3, 4])
    own = slice(0, 3) if rank == 0 else slice(3, 7)
    scores = pairs.SameLabel()(critics.InnerProductCritic(), x[own], labels[own])
    local = scores.local()
    return [scores.num_joint, scores.num_marginal, scores.num_candidates, scores.world_size], [
        local.num_joint,
        local.num_marginal,
        local.num_candidates,
        local.world_size,
        len(local.marginal_values()),
    ]


def test_counts_are_those_of_the_batch_and_local_ones_those_of_the_share(tmp_path):
    (first, of_first), (second, of_second) = on_processes(_labels, 2, tmp_path)
    assert first == second == [6, 42, 6, 2]
    assert of_first == [2, 18, 6, 1, 18]
    assert of_second == [4, 24, 6, 1, 24]


def _evaluation(rank):
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(rank))
    pairing, off = pairs.AllPairs().eval(), pairs.AllPairs(gather=False)
    made = [p(critics.InnerProductCritic(), x, x) for p in (pairing, off)]
    return [[scores.num_marginal, scores.world_size] for scores in made]


def test_each_process_pairs_its_own_in_evaluation_and_where_it_is_told_to(tmp_path):
    for found in on_processes(_evaluation, 2, tmp_path):
        assert found == [[12, 1], [12, 1]]


def _metrics(rank):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64)
    bound, results = bounds.DV(), []
    kinds = [partial(kind, bound, a) for kind in (MutualInformation, StandardError) for a in ("micro", "macro")]
    whole, pooled = [kind(sync_on_compute=False) for kind in kinds], [kind() for kind in kinds]
    sizes = EffectiveSampleFraction(sync_on_compute=False), EffectiveSampleFraction()
    for matrix in matrices:
        first, count = (0, 4) if rank == 0 else (4, 2)
        share = Scores.from_matrix(matrix[first : first + count], diagonal=first, pooled=True)
        batch = Scores.from_matrix(matrix)
        for metrics, scores, size in ((whole, batch, sizes[0]), (pooled, share, sizes[1])):
            size.update(scores)
            for metric in metrics:
                metric.update(bound(scores), scores)
    for one, many in zip(whole, pooled, strict=True):
        results.append((one.compute(), many.compute()))
    return [*results, (sizes[0].compute(), sizes[1].compute())]


def test_metrics_count_a_pooled_batch_once(tmp_path):
    for found in on_processes(_metrics, 2, tmp_path):
        for expected, actual in found:
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def _gathered(rank):
    rows = torch.full((rank, 2), float(rank), dtype=torch.bfloat16, requires_grad=True)
    share = shard_of([count for (count,) in all_gather_ints([rank], CPU)])
    everything = share.gather(rows)
    weights = torch.arange(6.0).view(3, 2) * (rank + 1)
    (everything * weights).sum().backward()
    stacked = gather(torch.tensor(float(rank), requires_grad=True))
    return everything.detach(), rows.grad, share.start, stacked.detach()


def test_rows_are_gathered_in_order_and_their_gradients_are_summed(tmp_path):
    for rank, (everything, gradient, start, stacked) in enumerate(on_processes(_gathered, 3, tmp_path)):
        assert everything.tolist() == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]
        assert everything.dtype == gradient.dtype == torch.bfloat16
        assert start == max(0, rank - 1)
        assert gradient.tolist() == (6 * torch.arange(6.0).view(3, 2))[start : start + rank].tolist()
        assert stacked.tolist() == [0.0, 1.0, 2.0]


def _spread(rank):
    torch.manual_seed(0)
    own = torch.rand(2, generator=rank_generator(CPU)), torch.rand(2)
    return (
        own,
        standard_deviation(torch.arange(3.0) if rank else torch.tensor([])),
        standard_deviation(torch.ones(1 - rank)),
    )


def test_random_streams_differ_and_the_spread_is_that_of_all_values(tmp_path):
    (own, deviation, of_one), (other, *_) = on_processes(_spread, 2, tmp_path)
    assert not torch.equal(own[0], other[0])
    assert torch.equal(own[1], other[1]), "the global stream goes on alike"
    assert deviation.item() == 1.0
    assert of_one.isnan()


def test_a_gradient_of_a_gradient_through_processes_is_refused(tmp_path):
    def work(rank):
        x = torch.ones(2, requires_grad=True)
        (gradient,) = torch.autograd.grad(gather(x).square().sum(), x, create_graph=True)
        try:
            gradient.sum().backward()
        except RuntimeError as error:
            return str(error)
        return ""

    assert all("once_differentiable" in said for said in on_processes(work, 2, tmp_path))


def test_alone_nothing_is_pooled():
    assert not dist.is_initialized()
    scores = Scores.from_matrix(torch.eye(3), pooled=True)
    assert scores.world_size == 1
    assert scores.num_marginal == 6
