"""TwoTowers: both directions of one matrix, other bounds, tiles, two encoders over ranks."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lightning_mi import MIEstimationModule, MILoss, bounds, critics, losses
from lightning_mi.pairs import AllPairs, SameId, TwoTowers
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.distributed import all_reduce_mean_
from tests.helpers.critic_specs import CRITICS, CriticSpec
from tests.helpers.loops import FixedCritic
from tests.helpers.processes import on_processes
from tests.helpers.specs import BOUNDS, BoundSpec, by_name

# Python 3.12 and later warn of every fork of a process with threads; gloo on one thread forks well.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

X, Y = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
SCORING = [spec for spec in CRITICS if not spec.make(4).is_log_density]
WITHOUT_ROWS = [spec for spec in BOUNDS if not (spec.needs_rows or spec.needs_log_density or spec.has_learned_baseline)]


def gradients(output: Tensor, *inputs: Tensor) -> Tensor:
    found = torch.autograd.grad(output, inputs, retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in found])


def both(
    pairing: TwoTowers | AllPairs, critic: critics.AbstractCritic, bound: bounds.AbstractBound
) -> tuple[Tensor, Tensor]:
    """The terms, and the gradient of the objective with respect to views and parameters."""
    x, y = X.clone().requires_grad_(), Y.clone().requires_grad_()
    terms = bound(pairing(critic, x, y))
    return torch.stack(terms), gradients(terms.objective, x, y, *critic.parameters())


def test_infonce_is_the_mean_of_both_directions() -> None:
    matrix = torch.randn(5, 5, dtype=torch.float64)
    terms = bounds.InfoNCE()(TwoTowers()(FixedCritic(matrix), X[:5], Y[:5]))
    rows, columns = (bounds.InfoNCE()(Scores.from_matrix(part)) for part in (matrix, matrix.T))
    for name, term in terms._asdict().items():
        mean = (getattr(rows, name) + getattr(columns, name)) / 2
        assert term.item() == pytest.approx(mean.item(), abs=1e-13), name
    assert abs(rows.value.item() - columns.value.item()) > 1e-3


def test_ceiling_is_log_n() -> None:
    scores = TwoTowers()(FixedCritic(1000 * torch.eye(6, dtype=torch.float64)), X[:6], Y[:6])
    assert scores.row_ceiling().item() == pytest.approx(math.log(6))
    assert bounds.InfoNCE()(scores).value.item() == pytest.approx(math.log(6))
    assert (scores.num_joint, scores.num_marginal, scores.num_candidates) == (12, 60, 6)


@pytest.mark.parametrize("spec", WITHOUT_ROWS, ids=by_name)
def test_bound_without_rows_equals_all_pairs(spec: BoundSpec) -> None:
    critic = critics.BilinearCritic(4, 4).double()
    found, expected = (both(pairing, critic, spec.make()) for pairing in (TwoTowers(), AllPairs()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spec", SCORING, ids=by_name)
def test_tiles_equal_the_matrix(spec: CriticSpec) -> None:
    """14 rows in tiles of 1 to 5: some hold rows of both directions."""
    critic = spec.make(4).double()
    for bound in (bounds.InfoNCE(), bounds.DCL(), bounds.DV(), bounds.JS()):
        dense = both(TwoTowers(tile_bytes=math.inf), critic, bound)
        for tile_bytes in (1, 3 * 7 * 8, 5 * 7 * 8):
            tiled = both(TwoTowers(tile_bytes=tile_bytes), critic, bound)
            for one, other in zip(tiled, dense, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_values_of_tiles_keep_their_order() -> None:
    critic, views = critics.BilinearCritic(4, 4).double(), (X, Y)
    tiled, dense = (TwoTowers(tile_bytes=size)(critic, *views) for size in (300, math.inf))
    torch.testing.assert_close(tiled.marginal_values(), dense.marginal_values())
    torch.testing.assert_close(tiled.detach().extremes(), dense.extremes())


def test_matrix_is_computed_once_in_one_process() -> None:
    class Counting(critics.AbstractCritic):
        calls = 0

        def paired(self, x: Tensor, y: Tensor) -> Tensor:
            raise NotImplementedError

        def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
            self.calls += 1
            return x @ y.T

    critic = Counting()
    TwoTowers()(critic, X, Y)
    assert critic.calls == 1


def test_log_densities_and_learned_baselines_are_errors() -> None:
    gaussian = critics.GaussianConditional(nn.Linear(4, 8)).double()
    for pairing, views in ((TwoTowers(), (X, Y)), (SameId(), (X, Y, torch.arange(7)))):
        with pytest.raises(ValueError, match=r"Got GaussianConditional for \w+: log-densities .* one direction"):
            pairing(gaussian, *views)
    with pytest.raises(ValueError, match="without candidates `y`, which TUBA's learned baseline"):
        bounds.TUBA(nn.Linear(4, 1).double())(TwoTowers()(critics.InnerProductCritic(), X, Y))


def towers() -> tuple[nn.Module, MILoss]:
    """Two encoders of different inputs, and a loss with a learnable temperature."""
    torch.manual_seed(0)
    encoders = nn.ModuleList([nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), nn.Linear(2, 3)])
    return encoders.double(), losses.clip(temperature=0.2).double()


def step(encoders: nn.Module, loss: MILoss, *views: Tensor) -> tuple[Tensor, Tensor]:
    """The terms, and the gradient of all parameters; the last is the temperature's."""
    x, y = (encoder(view) for encoder, view in zip(encoders.children(), views[:2], strict=True))
    output = loss.compute(x, y, *views[2:])
    parameters = [*encoders.parameters(), *loss.parameters()]
    return torch.stack(output.terms).detach(), gradients(output.loss, *parameters)


SHARDS = [(4, 3), (7, 0)]
IDS = torch.tensor([5, 6, 5, 7, 8, 9, 7])
CAPTIONS = torch.randn(11, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
CAPTION_IDS = torch.tensor([5, 6, 7, 8, 9, 5, 6, 4, 7, 7, 7])


def test_two_ranks_give_the_gradient_of_one(tmp_path) -> None:
    """Encoders and temperature, with tiles and without, shards of different lengths, and captions by id."""

    def on_rank(rank):
        results = []
        for shards in SHARDS:
            rows = slice(*((0, shards[0]) if rank == 0 else (shards[0], 7)))
            for tile_bytes in (100, math.inf):
                encoders, loss = towers()
                loss.pairs = TwoTowers(tile_bytes=tile_bytes)
                terms, gradient = step(encoders, loss, X[rows], Y[rows, :2])
                results.append((terms, all_reduce_mean_(gradient)))
            encoders, loss = towers()
            loss.pairs = SameId()
            others = slice(0, 3) if rank == 0 else slice(3, None)
            ids = torch.cat([IDS[rows], CAPTION_IDS[others]])
            terms, gradient = step(encoders, loss, X[rows], CAPTIONS[others], ids)
            results.append((terms, all_reduce_mean_(gradient)))
        return results

    expected = [step(*towers(), X, Y[:, :2])] * 2
    encoders, loss = towers()
    loss.pairs = SameId()
    expected.append(step(encoders, loss, X, CAPTIONS, torch.cat([IDS, CAPTION_IDS])))
    for results in on_processes(on_rank, 2, tmp_path):
        for (terms, gradient), (all_terms, whole) in zip(results, expected * len(SHARDS), strict=True):
            torch.testing.assert_close(terms, all_terms, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(gradient, whole, rtol=1e-12, atol=1e-12)
            assert abs(whole[-1]) > 1e-3, "the temperature has a gradient"


def test_module_of_two_encoders_predicts_both_directions() -> None:
    module = MIEstimationModule(
        critics.InnerProductCritic(normalize=True, learnable=True),
        bounds.InfoNCE(),
        pairs=TwoTowers(),
        encoder=[nn.Linear(4, 3), nn.Linear(2, 3)],
        prediction="both",
    ).eval()
    batch = (X.float(), Y[:, :2].float())
    predicted = module.predict_step(batch)
    scores = module.scores(*module.encode(*batch))
    assert predicted["x"].shape == predicted["y"].shape == (7, 3)
    assert predicted["pmi"].shape == (14,)
    torch.testing.assert_close(predicted["pmi"], scores.joint - scores.row_log_mean_exp())


@pytest.mark.parametrize("make", [TwoTowers, partial(TwoTowers, tile_bytes=1)])
def test_training_needs_two_samples_but_evaluation_does_not(make) -> None:
    critic = critics.InnerProductCritic()
    with pytest.raises(ValueError, match=r"Got a batch of 1: .*drop_last=True"):
        make()(critic, X[:1], Y[:1])
    assert make().eval()(critic, X[:1], Y[:1]).num_marginal == 0
    with pytest.raises(ValueError, match="Got 4 x and 3 y: row i of both is one joint pair"):
        make()(critic, X[:4], Y[:3])
