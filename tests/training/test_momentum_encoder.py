"""The momentum encoder is an exact moving average, updated once an optimizer step."""

import copy
import math

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import MIEstimationModule, bounds, critics, encoders, pairs
from lightning_mi.ensemble.ensemble import MIEnsemble
from tests.helpers.bad_batches import with_bad_batch, without_bad_batch
from tests.helpers.small_module import DIM, Batches, draw, equal, fit, trainer, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.* gave .* = (nan|-?inf):lightning_mi.MINumericalWarning"),
]

M = 0.9


def encoder(*extra, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(DIM, 8), *extra, nn.Tanh(), nn.Linear(8, 4))


def make(**kwargs):
    torch.manual_seed(1)
    parts = {"encoder": encoder(), "head": nn.Linear(4, 4), "encoder_momentum": M}
    return MIEstimationModule(critics.InnerProductCritic(), bounds.InfoNCE(), **(parts | kwargs))


def pairs_of(module):
    """Parameters of encoder and head beside their averages, as float64 arrays."""
    sources = [*module.encoders.parameters(), *module.heads.parameters()]
    averages = module.momentum_encoder.parameters()
    return [(p.detach().double().numpy(), a.double().numpy()) for p, a in zip(sources, averages, strict=True)]


class Record(L.Callback):
    """The weights after each batch."""

    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.rows.append([(p.copy(), a.copy()) for p, a in pairs_of(pl_module)])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_average_equals_a_loop_in_numpy(accumulate):
    module, record = make(), Record()
    expected = [p.copy() for p, _ in pairs_of(module)]
    fit(module, draw(*[8] * 6), callbacks=record, accumulate_grad_batches=accumulate)
    for batch, row in enumerate(record.rows):
        if (batch + 1) % accumulate == 0:
            expected = [M * e + (1 - M) * p for e, (p, _) in zip(expected, row, strict=True)]
        for e, (_, average) in zip(expected, row, strict=True):
            np.testing.assert_allclose(average, e, rtol=1e-5, atol=1e-7)
    assert not np.allclose(record.rows[-1][0][0], record.rows[-1][0][1], atol=1e-4)


def test_momentum_zero_copies_the_weights():
    module = make(encoder_momentum=0.0)
    fit(module, draw(8, 8))
    assert all(np.array_equal(p, a) for p, a in pairs_of(module))


def test_one_update_a_step_of_an_optimizer_with_many_evaluations():
    module, record = make(optimizer=lambda p: torch.optim.LBFGS(p, lr=0.01, max_iter=4)), Record()
    start = [p.copy() for p, _ in pairs_of(module)]
    fit(module, draw(8), callbacks=record)
    for s, (p, a) in zip(start, record.rows[0], strict=True):
        np.testing.assert_allclose(a, M * s + (1 - M) * p, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("chunk", [None, 3])
def test_keys_take_no_gradient(chunk):
    [(x, y)] = draw(8)
    module, other = make(encoder_chunk_size=chunk), encoder(seed=5)
    module.momentum_encoder.update(other, nn.Linear(4, 4))
    average = module.momentum_encoder
    module.step((x, y)).loss.backward()
    found = [p.grad.clone() for p in (*module.encoders.parameters(), *module.heads.parameters())]
    module.zero_grad()
    keys = average.head.network(average.encoder.network(y)).detach()
    scores = module.heads[0](module.encoders[0](x)) @ keys.T
    nn.functional.cross_entropy(scores, torch.arange(8)).backward()
    for gradient, p in zip(found, (*module.encoders.parameters(), *module.heads.parameters()), strict=True):
        torch.testing.assert_close(gradient, p.grad, rtol=1e-5, atol=1e-7)
    assert all(p.grad is None and not p.requires_grad for p in average.parameters())


def test_every_second_view_is_a_key_in_evaluation_too():
    module = make(pairs=pairs.IndependentMarginal()).eval()
    module.momentum_encoder.update(encoder(seed=5), nn.Linear(4, 4))
    x, y, x2, y2 = torch.randn(4, 6, DIM)
    encoded = module.encode(x, y, x2, y2)
    query, key = module.encoders[0], module.momentum_encoder.encoder.network
    for found, expected in zip(encoded, (query(x), key(y), query(x2), key(y2)), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(module(x), query(x))


def test_batch_norm_statistics_are_those_of_the_keys():
    [(x, y)] = draw(8)
    module = make(encoder=encoder(nn.BatchNorm1d(8)))
    before = copy.deepcopy(module.momentum_encoder.encoder.network)
    fit(module, Batches([(x, y)]))
    before(y)  # in training mode: it moves the running statistics
    found = module.momentum_encoder.encoder.network[1]
    torch.testing.assert_close(found.running_mean, before[1].running_mean)
    torch.testing.assert_close(found.running_var, before[1].running_var)
    assert found.num_batches_tracked == 1
    assert not torch.allclose(found.running_mean, module.encoders[0][1].running_mean, atol=1e-4)


def queue():
    """Keys of earlier batches as negatives: MoCo."""
    return pairs.Queue(pairs.AllPairs(), size=64, dim=4, in_batch=False)


def test_queue_holds_the_keys_of_the_momentum_encoder():
    module, [(x, y)] = make(pairs=queue()), draw(8)
    average = copy.deepcopy(module.momentum_encoder)
    fit(module, Batches([(x, y)]))
    keys = average.head.network(average.encoder.network(y))
    torch.testing.assert_close(module.pairs.entries[:8], keys)
    assert module.pairs.num_pushed == 8


@pytest.mark.parametrize("pairing", [pairs.AllPairs, queue])
def test_skipped_step_leaves_average_and_queue(pairing):
    trained = []
    for batches in (with_bad_batch(math.nan), without_bad_batch()):
        module = make(on_non_finite="skip", encoder=encoder(nn.BatchNorm1d(8)), pairs=pairing())
        fit(module, batches)
        trained.append(weights(module))
    assert equal(*trained)


class Save(L.Callback):
    def __init__(self, path, batch):
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.batch:
            trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize(("batch", "pairing"), [(0, pairs.AllPairs), (1, pairs.AllPairs), (1, queue)])
def test_resumed_training_has_equal_averages(batch, pairing, tmp_path):
    class Stateful:
        """A loader that resumes at a batch."""

        def __init__(self):
            self.batches, self.start = draw(8, 8, 8, 8).batches, 0

        def __len__(self):
            return 4

        def __iter__(self):
            return iter(self.batches[self.start :])

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            self.start = batch + 1

    path = tmp_path / "a.ckpt"
    module = make(pairs=pairing())
    trainer(callbacks=Save(path, batch), accumulate_grad_batches=2).fit(module, Stateful())
    again = make(encoder=encoder(seed=9), pairs=pairing())
    trainer(accumulate_grad_batches=2).fit(again, Stateful(), ckpt_path=path, weights_only=True)
    if batch == 1:  # between two batches of one step, accumulated gradients are no part of a checkpoint
        assert equal(weights(module), weights(again))
    content = torch.load(path, weights_only=True)["state_dict"]
    average = content["momentum_encoder.encoder.network.0.weight"]
    assert torch.equal(average, content["encoders.0.0.weight"]) == (batch == 0)


def test_shared_parameters_are_averaged_once():
    shared = encoder()
    module = make(encoder=shared, head=nn.Sequential(nn.Linear(4, DIM), shared))
    assert len(list(module.momentum_encoder.parameters())) == 6
    module.momentum_encoder.update(module.encoders[0], module.heads[0])


def test_compiled_networks_have_an_average():
    module, moved = make(encoder=torch.compile(encoder(), backend="eager")), encoder(seed=5)
    start = [p.copy() for p, _ in pairs_of(module)]
    module.momentum_encoder.update(torch.compile(moved, backend="eager"), module.heads[0])
    for s, p, a in zip(start, moved.parameters(), module.momentum_encoder.parameters(), strict=False):
        np.testing.assert_allclose(a.numpy(), M * s + (1 - M) * p.detach().numpy(), rtol=1e-6)


def test_module_can_be_copied_between_steps():
    module = make()
    fit(module, draw(8, 8))
    assert equal(weights(copy.deepcopy(module)), weights(module))


def test_average_is_in_no_optimizer():
    module = make()
    optimizer = module.configure_optimizers()
    averages = {id(p) for p in module.momentum_encoder.parameters()}
    assert averages.isdisjoint(id(p) for group in optimizer.param_groups for p in group["params"])


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"encoder_momentum": 1.0}, ValueError, r"encoder_momentum=1\.0: it is at least 0 and below 1"),
        ({"encoder_momentum": -0.1}, ValueError, r"encoder_momentum=-0\.1"),
        ({"encoder_momentum": math.nan}, ValueError, r"encoder_momentum=nan"),
        ({"encoder_momentum": "0.9"}, TypeError, r"encoder_momentum='0\.9', a str"),
        ({"encoder": None, "head": None}, ValueError, r"encoder_momentum=0\.9 with 0 encoders and 0 heads"),
        ({"encoder": [encoder(), encoder()]}, ValueError, r"with 2 encoders and 1 heads: .* Give one encoder"),
        ({"head": [nn.Linear(4, 4)] * 2}, ValueError, r"with 1 encoders and 2 heads"),
        ({"pairs": pairs.SameLabel()}, ValueError, r"with SameLabel, which takes one view"),
        ({"encoder": nn.LazyLinear(4)}, ValueError, r"a lazy module: .*Pass one batch"),
    ],
)
def test_invalid_arguments_raise(kwargs, error, message):
    with pytest.raises(error, match=message):
        make(**kwargs)


def test_ensemble_of_a_momentum_encoder_raises():
    with pytest.raises(ValueError, match=r"member 'a' with a momentum encoder"):
        MIEnsemble({"a": make(head=encoders.MLP(4, 4, out_dim=4))})
