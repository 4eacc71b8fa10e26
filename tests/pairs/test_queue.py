"""Queue: candidates of earlier batches; MoCo by loops over steps."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import MILoss, Scores, bounds, critics, pairs
from lightning_mi.utilities.distributed import get_rank, world_size
from tests.helpers.gaussian_critic import Exact
from tests.helpers.processes import on_processes
from tests.helpers.row_loops import infonce, through_unit, unit

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later

DIM, TEMPERATURE, STEPS = 3, 0.2, 5


def draw(n, seed, dim=DIM):
    x, y = np.random.default_rng(seed).normal(size=(2, n, dim))
    return x, y


def queue_of(size=7, pairing=None, **kwargs):
    return pairs.Queue(pairs.AllPairs() if pairing is None else pairing, size, DIM, **kwargs)


# MoCo: logits of the key and of the queue, divided by a temperature.


def moco_by_loops(n, size, in_batch):
    """Loss and gradients in queries and keys of each step: the queue is a list, newest last."""
    queue: list[np.ndarray] = []
    steps = []
    for step in range(STEPS):
        x, y = draw(n, step)
        q, k = unit(x), unit(y)
        candidates = np.array([*k, *queue])
        use_batch = in_batch or not queue
        rows = [(i, i, [j for j in range(len(candidates)) if j != i and (use_batch or j >= n)]) for i in range(n)]
        result = infonce(q / TEMPERATURE, candidates, rows)
        d_x = through_unit(x, result.x / TEMPERATURE)
        steps.append((result.loss, d_x, through_unit(y, result.y[:n]), result.ceiling))
        queue = [*queue, *k][-size:]
    return steps


def moco_by_package(shards, size, in_batch):
    """The same on this rank's shard of each batch; the mean over ranks of gradients is that of DDP."""
    critic = critics.InnerProductCritic(normalize=True, temperature=TEMPERATURE)
    loss_of = MILoss(critic, bounds.InfoNCE(), queue_of(size, in_batch=in_batch)).double()
    start, stop = sum(shards[: get_rank()]), sum(shards[: get_rank() + 1])
    steps = []
    for step in range(STEPS):
        x, y = (torch.tensor(view[start:stop], requires_grad=True) for view in draw(sum(shards), step))
        output = loss_of.compute(x, y)
        gradients = [gradient / world_size() for gradient in torch.autograd.grad(output.loss, [x, y])]
        steps.append([output.loss.detach(), *gradients, output.scores.row_ceiling()])
    return steps, loss_of.state_dict()["pairs.entries"]


def check_moco(results, shards, size, in_batch):
    for step, (loss, d_x, d_y, ceiling) in enumerate(moco_by_loops(sum(shards), size, in_batch)):
        for rank, (steps, entries) in enumerate(results):
            rows = slice(sum(shards[:rank]), sum(shards[: rank + 1]))
            given = steps[step]
            assert given[0].item() == pytest.approx(loss, abs=1e-10)
            np.testing.assert_allclose(given[1].numpy(), d_x[rows], atol=1e-10)
            np.testing.assert_allclose(given[2].numpy(), d_y[rows], atol=1e-10)
            assert given[3].item() == pytest.approx(ceiling)
            assert torch.equal(entries, results[0][1])


CASES = [(7, False), (12, False), (7, True)]


@pytest.mark.parametrize(("size", "in_batch"), CASES)
def test_moco_equals_a_loop(size, in_batch):
    check_moco([moco_by_package((4,), size, in_batch)], (4,), size, in_batch)


@pytest.mark.parametrize("shards", [(2, 2), (3, 1, 2)])
def test_moco_on_ranks_equals_a_loop(shards, tmp_path):
    """Neither the batch nor the number of ranks divides the queue."""

    def train(rank):
        return [moco_by_package(shards, *case) for case in CASES]

    results = on_processes(train, len(shards), tmp_path)
    for index, case in enumerate(CASES):
        check_moco([result[index] for result in results], shards, *case)


@pytest.mark.parametrize(
    "pairing", [pairs.TwoViews(tile_bytes=200), pairs.LocalGlobal(), pairs.TimeSteps((1, 2))], ids=str
)
@pytest.mark.parametrize("in_batch", [True, False])
def test_queue_adds_columns_to_any_pairing(pairing, in_batch):
    """The queue's entries are marginal pairs of every row, dense or in tiles."""
    torch.manual_seed(0)
    critic, queue = critics.InnerProductCritic(), queue_of(20, pairing, in_batch=in_batch).double()
    shape = {"TwoViews": (3, DIM), "LocalGlobal": (3, DIM, 2, 2), "TimeSteps": (3, 4, DIM)}[type(pairing).__name__]
    other = (3, 4, DIM) if isinstance(pairing, pairs.TimeSteps) else (3, DIM)
    first, second = ([torch.randn(size, dtype=torch.float64) for size in (shape, other)] for _ in range(2))
    kept = queue.pairing(critic, *first).y
    queue(critic, *first)
    scores, plain = queue(critic, *second), pairing(critic, *second)
    rows = pairing.arrange(critic, *second).x
    expected = [*(plain.marginal_values() if in_batch else []), *(rows @ kept.T).flatten()]
    assert sorted(scores.marginal_values().tolist()) == pytest.approx(sorted(float(value) for value in expected))
    torch.testing.assert_close(scores.joint, plain.joint)
    assert scores.num_marginal == len(expected)


def test_queue_holds_the_newest_candidates_detached():
    queue, y = queue_of(5), torch.arange(24.0, requires_grad=True).view(8, DIM)
    for part in y.split(2):
        queue(critics.InnerProductCritic(), part, part)
    assert sorted(queue.entries[:, 0].tolist()) == y[3:, 0].tolist()
    assert not queue.entries.requires_grad
    assert queue.num_pushed.item() == 8
    copy.deepcopy(queue)


def test_batch_with_a_nan_does_not_enter_the_queue():
    queue, y = queue_of(4), torch.randn(2, DIM)
    queue(critics.InnerProductCritic(), y, y)
    before = queue.entries.clone()
    queue(critics.InnerProductCritic(), y, y.where(y < y.max(), math.nan))
    assert torch.equal(queue.entries, before)
    assert queue.num_pushed.item() == 2


def test_backward_after_the_queue_changed_is_right():
    queue, critic = queue_of(4), critics.InnerProductCritic()
    x = torch.randn(2, DIM, requires_grad=True)
    queue(critic, *torch.randn(2, 2, DIM))
    first, saved = queue(critic, x, x.detach()), queue.entries[:2].clone()
    queue(critic, *torch.randn(2, 2, DIM))
    (gradient,) = torch.autograd.grad(first.marginal_mean(), x)
    total = x.detach().flip(0) + saved.sum(0)
    torch.testing.assert_close(gradient, total / 6)


def test_evaluation_neither_reads_nor_changes_the_queue():
    queue, critic = queue_of(6), critics.InnerProductCritic()
    queue(critic, *torch.randn(2, 4, DIM))
    state = {name: tensor.clone() for name, tensor in queue.state_dict().items()}
    assert queue.eval()(critic, *torch.randn(2, 9, DIM)).num_candidates == 9
    queue.in_evaluation = True
    assert queue(critic, *torch.randn(2, 9, DIM)).num_candidates == 13
    assert all(torch.equal(tensor, queue.state_dict()[name]) for name, tensor in state.items())


def test_checkpoint_restores_the_queue():
    critic, queue, other = critics.InnerProductCritic(), queue_of(6), queue_of(6)
    queue(critic, *torch.randn(2, 4, DIM))
    file = io.BytesIO()
    torch.save(queue.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    batch = torch.randn(2, 4, DIM)
    for made in (queue, other):
        assert made(critic, *batch).num_candidates == 8
    assert torch.equal(queue.entries, other.entries)
    with pytest.raises(RuntimeError, match=r"size mismatch for entries"):
        queue_of(8).load_state_dict(queue.state_dict())


def test_calibration_leaves_the_queue_unchanged():
    critic = critics.CalibratedCritic(critics.InnerProductCritic())
    queue = queue_of(6)
    MILoss(critic, bounds.DV(), queue)(*torch.randn(2, 4, DIM)).backward()
    assert queue.num_pushed.item() == 4


def test_half_precision_candidates_are_scored_in_their_type():
    queue, critic = queue_of(6), critics.InnerProductCritic()
    for _ in range(2):
        scores = queue(critic, *torch.randn(2, 4, DIM, dtype=torch.bfloat16))
    assert scores.y.dtype == torch.bfloat16
    assert queue.entries.dtype == torch.float32


def test_queue_of_a_fixed_encoder_raises_the_ceiling_not_the_value():
    """The truth, 5 nats, is above log 32: alone a batch cannot read it, with the queue it can."""
    truth, n, dim, size = 5.0, 32, 10, 4096
    rho = math.sqrt(1 - math.exp(-2 * truth / dim))
    generator = torch.Generator().manual_seed(0)
    queue = pairs.Queue(pairs.AllPairs(), size, dim)
    read, values = bounds.InfoNCE(), []
    for step in range(180):
        x, noise = torch.randn(2, n, dim, generator=generator)
        y = rho * x + math.sqrt(1 - rho**2) * noise
        scores = queue(Exact(rho), x, y)
        if step >= size // n:  # the queue is full
            fresh = torch.randn(size, dim, generator=generator)  # independent draws of y in the queue's place
            matrix = Exact(rho).pairwise(x, torch.cat([y, fresh]))
            joint = torch.eye(*matrix.shape, dtype=torch.bool)
            drawn = Scores.from_matrix(matrix, joint=joint, marginal=~joint)
            batch = pairs.AllPairs()(Exact(rho), x, y)
            values.append(torch.stack([read(made).value for made in (batch, scores, drawn)]))
    alone, value, expected = torch.stack(values).T
    assert alone.mean() < math.log(n)
    assert value.mean().item() == pytest.approx(truth, abs=0.15)
    differences = value - expected
    assert abs(differences.mean()) < 4 * differences.std() / len(differences) ** 0.5 + 0.01


def test_queue_over_accumulated_batches_has_the_value_of_the_whole():
    """The last of k batches is scored against the candidates of all k."""
    encoder, critic = nn.Linear(DIM, DIM), critics.InnerProductCritic()
    x, y = torch.randn(2, 12, DIM)
    queue = queue_of(9)
    for part in range(4):
        rows = slice(3 * part, 3 * part + 3)
        scores = queue(critic, encoder(x[rows]), encoder(y[rows]))
    whole = critic.pairwise(encoder(x), encoder(y))[9:]
    expected = (whole.diagonal(9) - whole.logsumexp(1) + math.log(12)).mean()
    torch.testing.assert_close(bounds.InfoNCE()(scores).value, expected)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: queue_of(0), ValueError, r"^Got size=0: it must be at least 1"),
        (lambda: queue_of(-4), ValueError, r"^Got size=-4"),
        (lambda: queue_of(2.5), TypeError, r"^Got size=2\.5, a float"),
        (lambda: pairs.Queue(pairs.AllPairs(), 4, 0), ValueError, r"^Got dim=0"),
        (lambda: queue_of(4, pairs.SameLabel()), TypeError, r"^Got pairing of type SameLabel: .* Choose pairs\.AllP"),
        (lambda: queue_of(4, queue_of(4)), TypeError, r"^Got pairing of type Queue"),
        (lambda: queue_of(4, pairs.AllPairs(gather=False)), ValueError, r"^Got AllPairs with gather=False: "),
    ],
)
def test_invalid_arguments_raise(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 5), r"^Got candidates of shape \(N, 5\) for a queue of width 3: .* Pass dim=D"),
        ((8, DIM), r"^Got 8 candidates of a batch, over all ranks, for a queue of size 7"),
    ],
)
def test_candidates_that_do_not_fit_raise(shape, message):
    with pytest.raises(ValueError, match=message):
        queue_of(7)(critics.InnerProductCritic(), torch.ones(shape), torch.ones(shape))


def test_declarations_are_those_of_the_wrapped_pairing():
    queue = queue_of(4, pairs.TwoViews())
    assert (queue.num_views, queue.mixes_views, queue.takes_labels) == (2, True, False)
    assert queue.true_value(object(), bounds.InfoNCE()) is None
    assert queue.max_value(object(), bounds.InfoNCE()) == math.inf
