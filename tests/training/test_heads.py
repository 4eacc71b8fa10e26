"""A projection head: the loss reads it, everything else reads the encoder."""

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from lightning_mi import CheckpointError, MIEstimationModule, bounds, critics, encoders, pairs
from lightning_mi.ensemble.ensemble import MIEnsemble
from lightning_mi.training.step import _mixes_encoders
from tests.helpers.processes import TIMEOUT
from tests.helpers.small_module import DIM, draw, equal, fit, trainer, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

WIDTH = 5


def encoder(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(DIM, 16), nn.Tanh(), nn.Linear(16, WIDTH))


def head(seed=1):
    torch.manual_seed(seed)
    return encoders.MLP(WIDTH, 8, out_dim=4)


def make(cls=MIEstimationModule, **kwargs):
    return cls(critics.InnerProductCritic(), bounds.InfoNCE(), **({"encoder": encoder(), "head": head()} | kwargs))


def float64(network, view):
    return network.double()(view.double()).detach().numpy()


def test_value_is_that_of_the_heads_output():
    [batch] = draw(8)
    module = make()
    value = module.step(batch).terms.value.item()
    x, y = (
        float64(module.heads[0], float64_view) for float64_view in module.double().encode(*[v.double() for v in batch])
    )
    scores = x @ y.T
    expected = np.mean([scores[i, i] - np.log(np.mean(np.exp(scores[i]))) for i in range(8)])
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("two", [False, True])
def test_gradients_equal_those_of_one_network(chunk, two):
    [batch] = draw(8)
    parts = [(encoder(i), head(10 + i)) for i in range(1 + two)]
    module = make(encoder=[e for e, _ in parts], head=[h for _, h in parts], encoder_chunk_size=chunk)
    joined = make(encoder=[nn.Sequential(e, h) for e, h in parts], head=None)
    module.step(batch).loss.backward()
    found = [p.grad.clone() for part in parts for network in part for p in network.parameters()]
    joined.zero_grad()
    joined.step(batch).loss.backward()
    expected = [p.grad for p in joined.parameters()]
    assert sum(float(gradient.norm()) for gradient in expected) > 0
    for gradient, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-7)


def test_features_predictions_and_forward_are_the_encoders():
    [batch] = draw(8)
    module = make(prediction="both").eval()
    features = module.encoders[0](batch[0])
    predicted = module.predict_step(batch)
    assert torch.equal(module.step(batch).features, features)
    assert torch.equal(predicted["x"], features)
    assert torch.equal(module(batch[0]), features)
    x, y = (module.heads[0](module.encoders[0](view)) for view in batch)
    scores = (x @ y.T).detach()
    expected = scores.diagonal() - scores.logsumexp(dim=1) + np.log(8)  # InfoNCE's candidates include the joint pair
    torch.testing.assert_close(predicted["pmi"], expected)


def test_project_can_be_overridden_without_a_head():
    class Normalized(MIEstimationModule):
        def project(self, *representations):
            return [nn.functional.normalize(each) for each in representations]

    [batch] = draw(8)
    scores = make(Normalized, head=None).step(batch).scores
    assert scores.joint.abs().max() <= 1 + 1e-6


def test_override_of_encode_is_an_encoder_for_the_head():
    class Twice(MIEstimationModule):
        def encode(self, *views):
            return [torch.cat([view, view[:, :2]], dim=1) for view in views]

    [batch] = draw(8)
    assert make(Twice, encoder=None).step(batch).features.shape == (8, WIDTH)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"encoder": None}, ValueError, r"Got a head without an encoder: .* Give the backbone as `encoder`"),
        ({"head": [head(), head(), head()]}, ValueError, r"Got 3 heads: give one for all views, or two"),
        ({"head": []}, ValueError, r"Got 0 heads"),
        ({"head": nn.Linear}, TypeError, r"Got head=Linear, a class: a head is a torch module\. Write head="),
    ],
)
def test_invalid_heads_raise(kwargs, error, message):
    with pytest.raises(error, match=message):
        make(**kwargs)


def test_chunks_of_a_batch_normalized_head_raise():
    module = make(head=nn.BatchNorm1d(WIDTH), encoder_chunk_size=3)
    with pytest.raises(ValueError, match=r"BatchNorm1d .* to encode in chunks"):
        module.step(draw(8).batches[0])


def test_two_heads_have_no_true_value_for_mixed_views():
    assert _mixes_encoders(make(head=[head(), head()], pairs=pairs.TwoViews()), pairs.TwoViews())
    assert not _mixes_encoders(make(), pairs.TwoViews())


def test_checkpoint_needs_the_head_again(tmp_path):
    module = make()
    fitted = fit(module)
    fitted.save_checkpoint(tmp_path / "a.ckpt")
    arguments = (critics.InnerProductCritic(), bounds.InfoNCE())
    load = MIEstimationModule.load_from_checkpoint
    with pytest.raises(CheckpointError, match=r"Got no head"):
        load(tmp_path / "a.ckpt", critic=arguments[0], bound=arguments[1], encoder=encoder(7))
    again = load(tmp_path / "a.ckpt", critic=arguments[0], bound=arguments[1], encoder=encoder(7), head=head(8))
    assert equal(weights(again), weights(module))


def test_ensemble_trains_the_head():
    member = make()
    before = weights(member.heads)
    fit(MIEnsemble({"a": member, "b": make(encoder=encoders.NormalScores(DIM), head=nn.Linear(DIM, 4))}), draw(8))
    assert not equal(before, weights(member.heads))


def test_two_ranks_train_a_head_as_one_process_does(tmp_path, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    batches = draw(8, 8, 8)
    module = make(encoder_momentum=0.5)
    fit(module, batches)
    ranks = make(encoder_momentum=0.5)

    def save():
        torch.save(weights(ranks), tmp_path / f"{ranks.global_rank}.pt")

    def shard(batch, dataloader_idx):
        return [view[4 * ranks.global_rank :][:4] for view in batch]

    ranks.on_fit_end, ranks.on_before_batch_transfer = save, shard
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo", timeout=TIMEOUT)
    fit(ranks, batches, devices=2, strategy=strategy)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert equal(first, second)
    assert any(name.startswith("momentum_encoder.head") for name in first)
    for name, value in weights(module).items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-5)


def test_training_changes_encoder_and_head():
    module = make()
    before = weights(module)
    trainer().fit(module, draw(8, 8))
    changed = {name.split(".")[0] for name, value in weights(module).items() if not torch.equal(value, before[name])}
    assert {"encoders", "heads"} <= changed
