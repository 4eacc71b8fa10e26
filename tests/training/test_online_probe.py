"""The online probe: alone, and during the training of an encoder."""

from functools import partial
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import MIEstimationModule, MINumericalWarning, critics
from lightning_mi.training.online_probe import OnlineLinearProbe
from tests.helpers.labelled import NUM_FEATURES, Digits, ddp, features_of, make
from tests.helpers.small_module import Batches, RecordingLogger, equal, fit, trainer, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
]


def probe():
    return OnlineLinearProbe(NUM_FEATURES, 10)


# Alone.


def test_logits_and_loss_equal_a_float64_reference():
    rng = np.random.default_rng(0)
    x, w, b, y = rng.normal(2, 3, (6, 5)), rng.normal(size=(3, 5)), rng.normal(size=3), rng.integers(0, 3, 6)
    classifier = OnlineLinearProbe(5, 3).double()
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor(w))
        classifier.bias.copy_(torch.tensor(b))
    normalized = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    logits = normalized @ w.T + b
    np.testing.assert_allclose(classifier(torch.tensor(x)).detach().numpy(), logits, rtol=1e-10)
    loss = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), y])
    assert classifier.loss(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(loss, rel=1e-10)


def test_features_get_no_gradient_and_no_numbers_are_drawn():
    before = torch.get_rng_state()
    classifier = probe()
    assert torch.equal(torch.get_rng_state(), before)
    features = torch.randn(8, NUM_FEATURES, requires_grad=True)
    classifier.loss(features, torch.arange(8)).backward()
    assert features.grad is None
    assert float(classifier.weight.grad.norm()) > 0


@pytest.mark.parametrize(
    ("features", "labels", "error", "message"),
    [
        (torch.zeros(4, 7), torch.zeros(4, dtype=torch.long), ValueError, r"Got features of shape \(4, 7\)"),
        (torch.zeros(4, 16, 1), torch.zeros(4, dtype=torch.long), ValueError, r"\(4, 16, 1\)"),
        (torch.zeros(4, 16), torch.zeros(4), TypeError, "labels of type float32"),
        (torch.zeros(2, 16), torch.tensor([0, 10]), ValueError, "label 10 at position 1"),
    ],
)
def test_unsuitable_features_or_labels_are_typed_errors(features, labels, error, message):
    with pytest.raises(error, match=message):
        probe().loss(features, labels)


@pytest.mark.parametrize(("arguments", "message"), [((1, 10), "num_features=1"), ((8, 1), "num_classes=1")])
def test_too_few_features_or_classes_are_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        OnlineLinearProbe(*arguments)


# In training.


@pytest.mark.parametrize(
    "clipping",
    [
        {},
        {"gradient_clip_val": 0.01},
        {"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"},
        {"accumulate_grad_batches": 2},
    ],
    ids=str,
)
def test_the_encoder_trains_bitwise_equal_without_the_probe(clipping):
    start = weights(make())
    without, having = make(), make(probe=probe())
    fit(without, datamodule=Digits(), **clipping)
    fit(having, datamodule=Digits(), **clipping)
    rest = {name: value for name, value in weights(having).items() if not name.startswith("probe.")}
    assert equal(rest, weights(without))
    assert not equal(rest, start)
    assert float(having.probe.weight.detach().norm()) > 0


def test_two_ranks_train_the_encoder_bitwise_equal():
    without, having = make(), make(probe=probe())
    fit(without, datamodule=Digits(), gradient_clip_val=0.01, **ddp())
    fit(having, datamodule=Digits(), gradient_clip_val=0.01, **ddp())
    assert equal({n: v for n, v in weights(having).items() if not n.startswith("probe.")}, weights(without))
    assert not equal(weights(without), weights(make()))


class Gradients(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.probe_gradients = [p.grad.clone() for p in pl_module.probe.parameters()]
        self.other_gradients = [p.grad.clone() for n, p in pl_module.named_parameters() if not n.startswith("probe.")]


def test_probe_and_encoder_are_clipped_separately():
    callback = Gradients()
    fit(make(probe=probe()), datamodule=Digits(), gradient_clip_val=0.01, callbacks=callback, max_steps=1)
    for gradients in (callback.probe_gradients, callback.other_gradients):
        assert float(torch.stack([g.norm() for g in gradients]).norm()) == pytest.approx(0.01, rel=1e-3)


class Outputs(L.Callback):
    def __init__(self):
        self.recorded = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.recorded.append(outputs)


def test_the_logged_loss_excludes_the_probe_loss():
    alone, logger, outputs = RecordingLogger(), RecordingLogger(), Outputs()
    fit(make(), datamodule=Digits(), logger=alone)
    module = make(probe=probe())
    fit(module, datamodule=Digits(), logger=logger, callbacks=outputs)
    assert logger.curve("train/loss") == alone.curve("train/loss")
    losses = logger.curve("train/probe_loss")
    assert losses[0] == pytest.approx(np.log(10), rel=1e-6)
    assert losses[-1] < losses[0] - 0.01
    total = [float(o["loss"]) for o in outputs.recorded]
    np.testing.assert_allclose(total, np.add(logger.curve("train/loss"), losses), rtol=1e-6)
    for o in outputs.recorded:
        assert not o["features"].requires_grad
        assert o["features"].shape == (64, NUM_FEATURES)
        assert o["labels"].shape == (64,)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_online_accuracy_is_that_of_the_whole_set(stage):
    module, data = make(probe=probe()), Digits()
    fit(module, datamodule=data, max_epochs=5)
    part = slice(1000, 1301) if stage == "validate" else slice(1301, 1600)
    correct = module.probe(features_of(module, data.x[part])).argmax(dim=1) == data.y[part]
    [read] = getattr(trainer(), stage)(module, datamodule=data, verbose=False)
    assert read["probe/online_accuracy"] == pytest.approx(float(correct.float().mean()), abs=1e-6)
    assert read["probe/online_accuracy"] > 0.3


def test_a_sample_with_nan_features_counts_as_wrong():
    module, data = make(probe=probe()), Digits()
    with torch.no_grad():
        module.encoders[0][-1].bias.fill_(torch.nan)
    with pytest.warns(MINumericalWarning, match="not finite"):
        [read] = trainer().test(module, datamodule=data, verbose=False)
    assert read["probe/online_accuracy"] == 0


def test_a_probe_alone_is_an_error():
    with pytest.raises(ValueError, match="Neither the encoder nor InnerProductCritic"):
        fit(
            make(nn.Linear(64, 16).requires_grad_(False), critics.InnerProductCritic(), probe=probe()),
            datamodule=Digits(),
        )


@pytest.mark.parametrize(
    ("batch", "contents"),
    [
        ((torch.ones(4, 64), torch.ones(4, 64)), r"float32 \(4, 64\), float32 \(4, 64\)"),
        ((torch.ones(4, 64), torch.ones(4, 64), torch.ones(4, 10, dtype=torch.long)), r"int64 \(4, 10\)"),
    ],
)
def test_missing_labels_are_an_error_that_lists_the_batch(batch, contents):
    with pytest.raises(
        TypeError, match=f"OnlineLinearProbe needs labels, but the batch holds .*{contents}.*after the 2 views"
    ):
        fit(make(probe=probe()), Batches([batch]))


def test_another_number_of_classes_is_an_error():
    module = make(probe=OnlineLinearProbe(NUM_FEATURES, 12))
    with pytest.raises(ValueError, match="Got OnlineLinearProbe with num_classes=12 for Digits with num_classes=10"):
        fit(module, datamodule=Digits())


# Checkpoints and processes.


def saved(module, path, **kwargs):
    fitted = fit(module, datamodule=Digits(), **kwargs)
    fitted.save_checkpoint(path)
    return path


def test_the_checkpoint_holds_the_probe(tmp_path):
    module = make(probe=probe())
    path = saved(module, tmp_path / "one.ckpt")
    state = torch.load(path, weights_only=True)["state_dict"]
    assert torch.equal(state["probe.weight"], module.probe.weight)
    assert torch.equal(state["probe.bias"], module.probe.bias)
    other = make(probe=probe(), seed=1)
    loaded = MIEstimationModule.load_from_checkpoint(
        path, critic=other.critic, bound=other.bound, encoder=other.encoders, probe=other.probe
    )
    assert equal(weights(loaded), weights(module))


def frozen():
    """A frozen encoder: the probe then depends on the samples only, not on the pairs."""
    torch.manual_seed(0)
    return nn.Linear(64, NUM_FEATURES).requires_grad_(False)


def test_two_ranks_train_the_same_probe():
    sgd, modules, read = partial(torch.optim.SGD, lr=0.5), [], []
    kwargs: dict[str, Any]
    for kwargs in ({}, ddp()):
        module = make(frozen(), probe=probe(), optimizer=sgd)
        fitted = fit(module, datamodule=Digits(), max_epochs=2, **kwargs)
        modules.append(module.probe)
        read.append(float(fitted.callback_metrics["probe/online_accuracy"]))
    first, second = modules
    assert float(first.weight.detach().norm()) > 0.1
    torch.testing.assert_close(second.weight, first.weight, rtol=1e-4, atol=1e-6)
    assert read[0] == pytest.approx(read[1], abs=1e-6)
    assert read[0] > 0.5


@pytest.mark.filterwarnings("ignore:Got a checkpoint of world size")
def test_a_checkpoint_moves_between_one_rank_and_two(tmp_path):
    def run(path, resume, **kwargs):
        module = make(frozen(), probe=probe(), seed=1)
        fitted = trainer(**kwargs)
        fitted.fit(module, datamodule=Digits(), ckpt_path=resume)
        fitted.save_checkpoint(path)
        return weights(module)

    apart = {"one": {}, "two": ddp()}
    for first, second in (("one", "two"), ("two", "one")):
        path, later = tmp_path / f"{first}.ckpt", tmp_path / f"{first}-{second}.ckpt"
        before = run(path, None, max_epochs=1, **(ddp() if first == "two" else {}))
        after = run(later, path, max_epochs=2, **(ddp() if second == "two" else {}))
        state = torch.load(later, weights_only=True)["state_dict"]
        assert equal({name: state[name] for name in after}, after)
        assert not torch.equal(after["probe.weight"], before["probe.weight"])
        expected = trainer().validate(make(frozen(), probe=probe()), datamodule=Digits(), ckpt_path=path, verbose=False)
        actual = trainer(**apart[second]).validate(
            make(frozen(), probe=probe()), datamodule=Digits(), ckpt_path=path, verbose=False
        )
        assert actual[0]["probe/online_accuracy"] == pytest.approx(expected[0]["probe/online_accuracy"], abs=1e-6)
