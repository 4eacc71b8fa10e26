"""Candidates that pass round a ring of ranks: exactness, memory, what stays on a rank, and errors."""

import pytest
import torch

from lightning_mi import MILoss, Scores, bounds, critics, pairs, regularizers
from lightning_mi.exceptions import DoubleBackwardError, RingGatherError
from lightning_mi.scores.batch_shard import BatchShard
from lightning_mi.scores.joint_columns import JointColumns
from lightning_mi.scores.ring import RingTiles
from lightning_mi.scores.tiles import AbstractTiles, ProductTiles
from lightning_mi.utilities.distributed import all_reduce_mean_
from lightning_mi.utilities.point_to_point import pass_on
from tests.helpers import ddp_exactness as exactness
from tests.helpers.critic_specs import CRITICS
from tests.helpers.processes import on_processes
from tests.helpers.specs import PAIRINGS

# Python 3.12 and later warn of every fork of a process with threads; gloo on one thread forks well.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::lightning_mi.exceptions.MINumericalWarning"),
]
DIM = 3


@pytest.mark.parametrize(
    ("shards", "pairing"),
    [((3, 6), "AllPairs(ring)"), ((4, 0, 5), "TwoViews(ring)"), ((2, 5, 0, 4), "AllPairs(ring)")],
)
def test_every_bound_has_the_gradient_of_one_process(shards, pairing):
    cases = exactness.cases(pairing_names=[pairing], regularizer_names=["Squared-log"])
    assert len(cases) == len(exactness.BOUNDS)
    for result in exactness.run(cases, shards, torch.float64):
        assert max(result.error, result.loss_error) <= 1e-12, result
        assert result.parameter_error <= 1e-9, result
        assert result.equal, f"ranks differ: {result}"


def views(rows, seed=0):
    x, noise = torch.randn(2, rows, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [x.requires_grad_(), (0.8 * x + 0.6 * noise).detach().requires_grad_()]


def gradients(module, leaves):
    return torch.cat([leaf.grad.flatten() for leaf in [*leaves, *module.parameters()] if leaf.grad is not None])


def loss_of(critic, gather, bound=None, **kwargs):
    pairing = pairs.AllPairs(gather=gather, tile_bytes=200)
    return MILoss(critic, bound or bounds.JS(), pairing, regularizers.Squared(weight=0.3), **kwargs).double()


def _every_critic(rank):
    """The largest difference of loss and gradient between ring and all-gather, by critic."""
    found = {}
    for spec in CRITICS:
        results = []
        for gather in (True, "ring"):
            torch.manual_seed(1)
            leaves = views((4, 3)[rank], seed=rank)
            module = loss_of(spec.make(DIM), gather)
            if isinstance(module.critic, critics.CalibratedCritic):
                module.critic.calibrated.fill_(True)
            loss = module(*leaves)
            loss.backward()
            for parameter in module.parameters():
                all_reduce_mean_(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
            results.append(torch.cat([loss.detach().reshape(1), gradients(module, leaves)]))
        found[spec.name] = float((results[0] - results[1]).abs().max())
        assert results[0].abs().max() > 0.1
    return found


def test_every_critic_with_tiles_passes_round(tmp_path):
    for found in on_processes(_every_critic, 2, tmp_path):
        assert len(found) == len(CRITICS)
        assert max(found.values()) <= 1e-12, found


def _calibrated(rank):
    found = []
    for gather in (True, "ring"):
        torch.manual_seed(0)
        critic = critics.CalibratedCritic(critics.SeparableCritic(DIM, DIM, hidden=(4,)), scale=True)
        module = loss_of(critic, gather, bound=bounds.NWJ())
        module.compute(*views(5, seed=rank))
        found.append(torch.stack(list(critic.parameters())[:2]).detach())  # the offset and the log-scale
    return found


def test_calibration_is_that_of_the_all_gather(tmp_path):
    for gathered, ring in on_processes(_calibrated, 2, tmp_path):
        assert bool(gathered.ne(0).all())
        torch.testing.assert_close(ring, gathered, rtol=1e-13, atol=0)


def _what_stays(rank):
    x, y = views(4, seed=rank)
    pairing, critic = pairs.AllPairs(gather="ring"), critics.InnerProductCritic()
    scores = pairing(critic, x, y)
    terms = bounds.DV()(scores)
    local = scores.local().detach()
    own = x @ y.T
    off_diagonal = own[~torch.eye(4, dtype=torch.bool)]
    # Without collectives from here on, so that one rank may read them alone.
    if rank == 0:
        assert len(scores.y) == 4
        assert (scores.num_joint, scores.num_marginal, scores.num_candidates) == (8, 56, 8)
        torch.testing.assert_close(local.marginal_values(), off_diagonal)
        assert torch.stack(local.extremes()).tolist() == [own.min(), own.max()]
        assert torch.isfinite(local.log_mean_exp())
        assert torch.isfinite(local.log_mean_exp(power=2.0))
    pairing.eval()
    assert pairing(critic, x, y).num_marginal == 12, "in evaluation each rank pairs its own samples"
    return float(terms.value.detach())


def test_observers_read_a_rank_without_collectives(tmp_path):
    first, second = on_processes(_what_stays, 2, tmp_path)
    assert first == second


def _messages(rank):
    tensors = [torch.full((rank + 1, 2), float(rank)), torch.full((rank + 1,), rank)]
    for _ in range(3):
        rank = (rank - 1) % 3
        tensors = pass_on(tensors, num_rows=rank + 1)()
    return tensors


def test_what_passes_round_comes_home(tmp_path):
    for rank, (floats, integers) in enumerate(on_processes(_messages, 3, tmp_path)):
        assert torch.equal(floats, torch.full((rank + 1, 2), float(rank)))
        assert torch.equal(integers, torch.full((rank + 1,), rank))


# One process.


def test_one_process_is_one_block():
    x, y = views(6)
    expected = loss_of(critics.InnerProductCritic(), True)(x, y)
    assert torch.equal(loss_of(critics.InnerProductCritic(), "ring")(x, y), expected)
    ring = RingTiles(ProductTiles(x, y), BatchShard((6,)))
    scores = Scores.from_columns(ring, JointColumns.of_diagonal(x), tile_bytes=100)
    found = torch.autograd.grad(bounds.JS()(scores).objective, [x, y])
    dense = torch.autograd.grad(bounds.JS()(Scores.from_matrix(x @ y.T)).objective, [x, y])
    torch.testing.assert_close(found, dense, rtol=1e-12, atol=1e-15)


def ring_scores():
    x, y = views(6)
    return Scores.from_columns(RingTiles(ProductTiles(x, y), BatchShard((6,))), JointColumns.of_diagonal(x)), x


def test_double_backward_is_an_error():
    scores, x = ring_scores()
    with pytest.raises(DoubleBackwardError, match=r"gather=True and tile_bytes=math.inf"):
        torch.autograd.grad(scores.log_mean_exp(), x, create_graph=True)


def test_offset_of_clipped_scores_is_an_error():
    scores, x = ring_scores()
    with pytest.raises(RingGatherError, match=r"Got clip=1.0 and an offset with gather='ring'"):
        scores.log_mean_exp(clip=1.0, offset=x.sum(dim=1))


def test_transforms_of_torch_are_an_error():
    x, y = views(4)
    with pytest.raises(RingGatherError, match=r"under torch\.func"):
        torch.func.grad(lambda x: RingTiles(ProductTiles(x, y), BatchShard((4,))).shape[0] * x.sum())(x)


class _OneForm(AbstractTiles):
    """Tiles that do not declare which inputs belong to columns."""

    def __init__(self):
        self.inputs, self.shape, self.row_bytes = (torch.zeros(2, 1),), (2, 2), 8

    def matrix(self):
        return torch.zeros(self.shape)

    def at(self, rows, columns):
        return torch.zeros(self.shape)[rows, columns]

    def tile(self, rows, differentiate):
        return torch.zeros(self.shape)[rows], lambda weights, into: None


def test_tiles_without_column_inputs_are_an_error():
    with pytest.raises(RingGatherError, match=r"_OneForm, which declares no `column_inputs`"):
        RingTiles(_OneForm(), BatchShard((2, 2)))


class _NoTiles(critics.AbstractCritic):
    def pairwise(self, x, y):
        return x @ y.T

    def paired(self, x, y):
        return (x * y).sum(-1)


def _critic_without_tiles(rank):
    pairs.AllPairs(gather="ring")(_NoTiles(), *views(4, seed=rank))


def test_critic_without_tiles_is_an_error_on_all_ranks(tmp_path):
    for message in on_processes(_critic_without_tiles, 2, tmp_path):
        assert message.startswith("RingGatherError: Got gather='ring' with _NoTiles, which has no tiles")


@pytest.mark.parametrize("spec", PAIRINGS, ids=lambda spec: spec.name)
def test_pairing_without_tiles_rejects_a_ring(spec):
    arguments = [4] if spec.candidates_are_labels else []

    def make() -> pairs.AbstractPairing:
        return type(spec.make())(*arguments, gather="ring")

    if spec.name in ("AllPairs", "TwoViews"):
        assert make().gather == "ring"
    else:
        with pytest.raises(RingGatherError, match=f"Got gather='ring' for {spec.name}: a ring needs tiles"):
            make()


def test_unknown_gather_is_an_error():
    with pytest.raises(ValueError, match="Got gather='all': it is True"):
        pairs.AllPairs(gather="all")
