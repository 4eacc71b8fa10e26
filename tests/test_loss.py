"""MILoss in plain torch loops."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import MILoss, bounds, critics, pairs, regularizers
from lightning_mi.exceptions import MINumericalWarning
from tests.helpers.processes import on_processes
from tests.helpers.reference import Sheet
from tests.helpers.small_module import DIM, draw, equal, fit, make, weights
from tests.helpers.specs import BOUNDS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


def critic():
    torch.manual_seed(0)
    return critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4)


def mi_loss(bound=None, **kwargs):
    return MILoss(kwargs.pop("critic", None) or critic(), bound or bounds.DV(), **kwargs)


SPECS = [spec for spec in BOUNDS if spec.name in ("DV", "InfoNCE", "JS")]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_loss_is_that_of_a_float64_reference(spec):
    module, ((x, y),) = mi_loss(spec.make().float(), regularizer=regularizers.Squared(0.3)), draw(8)
    t = module.critic.pairwise(x, y).detach().numpy().astype(np.float64)
    expected = spec.reference(Sheet(t, np.eye(8, dtype=bool), ~np.eye(8, dtype=bool)))
    penalty = 0.3 * expected.log_normalizer**2
    near = partial(pytest.approx, rel=1e-5, abs=1e-6)
    assert module(x, y).item() == near(penalty - expected.objective)
    output = module.compute(x, y)
    assert output.terms.value.item() == near(expected.value)
    assert output.penalty.item() == near(penalty)
    assert (output.scores.num_joint, output.scores.num_marginal) == (8, 56)


def test_a_plain_loop_trains_as_the_module_does():
    warmup = regularizers.LinearWarmup(weight=1.0, steps=4)
    loop, module = (
        mi_loss(bounds.MINE(), regularizer=regularizers.Squared(warmup)),
        make(
            bounds.MINE(),
            regularizer=regularizers.Squared(warmup),
            optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1),
        ),
    )
    optimizer = torch.optim.SGD(loop.parameters(), 0.1)
    for x, y in draw(*[8] * 6):
        optimizer.zero_grad()
        loop(x, y).backward()
        optimizer.step()
    fit(module, draw(*[8] * 6))
    assert equal(weights(loop), weights(module.mi_loss))


def test_the_schedule_counts_training_calls_and_resumes():
    module = mi_loss(regularizer=regularizers.Squared(regularizers.LinearWarmup(weight=1.0, steps=4)))
    (x, y), other = draw(8).batches[0], copy.deepcopy(module)
    ratios = []
    for _ in range(3):
        output = module.compute(x, y)
        ratios.append((output.penalty / output.terms.log_normalizer**2).item())
        module.eval()(x, y)
        module.train()
    np.testing.assert_allclose(ratios, [0.0, 0.25, 0.5], rtol=1e-5)
    other.load_state_dict(module.state_dict())
    assert (other.num_batches, other.regularizer.current_weight()) == (3, 0.75)
    assert torch.equal(other(x, y), module(x, y))


def test_a_failed_call_is_not_counted():
    module = mi_loss()
    with pytest.raises(ValueError, match="Got 1 view"):
        module(torch.ones(4, DIM))
    assert module.num_batches == 0


def test_a_calibrated_critic_is_set_on_the_first_training_call():
    calibrated = critics.CalibratedCritic(critics.BilinearCritic(DIM, DIM))
    module = mi_loss(critic=calibrated, regularizer=regularizers.Squared(target=2.0))
    (first, second) = draw(8, 8).batches
    module.eval()(*first)
    assert not calibrated.calibrated
    assert module.train().compute(*first).terms.log_normalizer.item() == pytest.approx(2, abs=1e-5)
    offset = calibrated.offset.clone()
    module(*second)
    assert torch.equal(calibrated.offset, offset)


def test_labels_follow_the_views():
    module = mi_loss(pairs=pairs.SameLabel())
    x, labels = torch.randn(6, DIM), torch.tensor([0, 0, 1, 1, 2, 2])
    assert module.compute(x, labels).scores.num_joint == 6
    with pytest.raises(TypeError, match="class labels are integers"):
        module(x, labels.float())


def test_batch_without_joint_pairs_reads_nan_and_trains():
    module = mi_loss(pairs=pairs.SameLabel())
    with pytest.warns(MINumericalWarning, match="Got a batch without joint pairs: .*no joint term"):
        output = module.compute(torch.randn(6, DIM), torch.arange(6))
    assert output.terms.value.isnan()
    assert output.terms.joint_term.isnan()
    assert torch.isfinite(output.loss)


def test_evaluation_of_one_sample_warns_and_is_nan():
    with pytest.warns(MINumericalWarning, match="Got a batch without marginal pairs: .*the loss is NaN"):
        assert mi_loss().eval()(torch.randn(1, DIM), torch.randn(1, DIM)).isnan()


def test_only_the_output_holds_a_graph():
    module, ((x, y),) = mi_loss(bounds.MINE(), regularizer=regularizers.Squared()), draw(8)
    size = len(pickle.dumps(module))
    module(x, y).backward()
    module.zero_grad()
    again = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    assert len(pickle.dumps(module)) == size
    assert torch.equal(again(x, y), module(x, y))


WRONG = {
    "critic": (lambda: MILoss(nn.Bilinear(2, 2, 1), bounds.DV()), TypeError, "Write critic=critics"),
    "bound": (lambda: mi_loss(bounds.DV), TypeError, "Got bound=DV, a class"),
    "pairs": (lambda: mi_loss(pairs="all"), TypeError, r"Write pairs=pairs\.AllPairs"),
    "regularizer": (lambda: mi_loss(regularizer=0.1), TypeError, r"Write regularizer=regularizers\.Squared"),
    "target": (lambda: mi_loss(bounds.NWJ(), regularizer=regularizers.Squared(target=1.0)), ValueError, "target=1.0"),
    "view": (lambda: mi_loss()(np.ones((4, DIM)), np.ones((4, DIM))), TypeError, "ndarray"),
    "tuple": (lambda: mi_loss()((torch.ones(4, DIM), torch.ones(4, DIM))), TypeError, r"Got a tuple of 2.*\*batch"),
    "rows": (lambda: mi_loss()(torch.ones(4, DIM), torch.ones(3, DIM)), ValueError, "Got 4 x and 3 y"),
    "single row": (lambda: mi_loss()(torch.ones(1, DIM), torch.ones(1, DIM)), ValueError, "Got a batch of 1"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_a_typed_error(wrong):
    call, error, message = WRONG[wrong]
    with pytest.raises(error, match=message):
        call()


def gradients(rank, shards):
    """Gradients of one rank's loss on its shard of a batch of 8."""
    module, ((x, y),) = mi_loss(regularizer=regularizers.Squared(0.5)).double(), draw(8)
    rows = slice(*shards[rank])
    loss = module(x[rows].double(), y[rows].double())
    loss.backward()
    return [loss.detach(), *(p.grad for p in module.parameters())]


def test_two_ranks_average_to_the_gradient_of_one(tmp_path):
    whole = gradients(0, [(0, 8)])
    first, second = on_processes(lambda rank: gradients(rank, [(0, 5), (5, 8)]), 2, tmp_path)
    for expected, a, b in zip(whole, first, second, strict=True):
        torch.testing.assert_close((a + b) / 2, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(first[0], second[0])


def test_a_damaged_count_is_an_error_on_loading():
    module = mi_loss()
    for count in (torch.zeros(2), torch.tensor(1.0), "3"):
        with pytest.raises(RuntimeError, match=r"Error\(s\) in loading state_dict"):
            module.load_state_dict(module.state_dict() | {"_extra_state": count})


@pytest.mark.parametrize("factor", [-1.0, -0.1])
def test_minus_sign_is_an_error_in_the_first_backward(factor):
    module, ((x, y),) = mi_loss(), draw(8)
    for _ in range(2):
        for loss in (module(x, y), module.compute(x, y).loss):
            with pytest.raises(ValueError, match="MIPenalty or MIMinimizer"):
                (factor * loss).backward()


def test_minus_sign_suits_a_frozen_critic():
    module, ((x, y),) = mi_loss(critic=critic().requires_grad_(False)), draw(8)
    (-module(x.requires_grad_(), y)).backward()
    assert x.grad is not None


def test_loss_of_weight_zero_or_above_has_no_error():
    module, ((x, y),) = mi_loss(), draw(8)
    for factor in (0.0, 1.0):
        (factor * module(x, y)).backward()
