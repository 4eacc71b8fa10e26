"""MIPenalty in modules that are not ours."""

import copy
import math

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_mi import MIMinimizer, MIMinimizerOutput, Scores, bounds, critics, regularizers
from lightning_mi.callbacks import MIPenalty
from lightning_mi.exceptions import NonFiniteBatchError, WatchError
from tests.helpers.leaky import Leaky, loader
from tests.helpers.small_module import Batches, RecordingLogger, equal, trainer, weights


def penalty(y="batch.nuisance", **options):
    torch.manual_seed(3)
    return MIPenalty("encoder", y, **options)


def fit(module, callback, batches=None, **options):
    fitted = trainer(callbacks=[callback], **options)
    fitted.fit(module, loader() if batches is None else batches)
    return fitted


def test_first_step_equals_a_loop_by_hand():
    module, by_hand = Leaky(), Leaky()
    critic = critics.SeparableCritic(2, 1, hidden=(8,))
    callback = penalty(steps=2, weight=0.5, critic=lambda *dims: copy.deepcopy(critic))
    fit(module, callback, max_steps=1)
    batch = next(iter(loader()))
    minimizer = MIMinimizer(critic, steps=2, weight=0.5)
    optimizer = by_hand.configure_optimizers()
    loss = by_hand.training_step(batch, 0)
    (loss + minimizer(by_hand(batch["x"]), batch["nuisance"])).backward()
    optimizer.step()
    for name, value in weights(by_hand).items():
        torch.testing.assert_close(weights(module)[name], value)


def test_value_that_is_not_finite_raises_before_a_change():
    module = Leaky()
    before, samples = weights(module), list(loader().dataset)
    samples[5]["nuisance"] = torch.tensor([math.nan])
    with pytest.raises(NonFiniteBatchError, match=r"View batch.nuisance of shape .* at index \(5, 0\), at batch 0"):
        fit(module, penalty(), DataLoader(samples, 32))
    assert equal(weights(module), before)


def test_loss_without_gradient_raises():
    class Detached(Leaky):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx).detach()

    with pytest.raises(WatchError, match="Got a training loss without a gradient"):
        fit(Detached(), penalty(), max_steps=1)


def test_logged_loss_is_the_modules_own():
    logger, plain = RecordingLogger(), RecordingLogger()

    class Logging(Leaky):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss, prog_bar=True)
            return loss

    fit(Logging(), penalty(), logger=logger, max_steps=1)
    trainer(logger=plain, max_steps=1).fit(Logging(), loader())
    assert logger.curve("loss") == plain.curve("loss")
    assert len(logger.curve("penalty/encoder/batch.nuisance")) == 1
    assert logger.curve("penalty/encoder/batch.nuisance_weight") == [1.0]


def test_weight_zero_leaves_the_module_as_it_is():
    module, plain = Leaky(), Leaky()
    fit(module, penalty(weight=0.0))
    trainer().fit(plain, loader())
    assert equal(weights(module), weights(plain))


class Noise(nn.Module):
    def forward(self, x):
        return x + 0.3 * torch.randn_like(x)


def test_nuisance_is_removed():
    slopes = []
    for callbacks in ([], [penalty(weight=10.0, optimizer=lambda p: torch.optim.Adam(p, 1e-2))]):
        module = Leaky()
        linear = module.encoder
        module.add_module("encoder", nn.Sequential(linear, Noise()))
        trainer(callbacks=callbacks, max_epochs=20).fit(module, loader())
        slopes.append((linear.weight[:, 1].norm() / linear.weight[:, 0].norm()).item())
    assert slopes[1] < 0.5 * slopes[0]


class Sum:
    """In place of a minimizer: the penalty is the sum of x."""

    num_batches = 0
    lag = float("nan")

    def compute(self, x, y):
        terms = bounds.DV()(Scores.from_matrix(torch.zeros(2, 2)))
        self.num_batches += 1
        return MIMinimizerOutput(x.sum(), terms, terms)

    def weight_at(self, num_batches):
        return 1.0


@pytest.mark.parametrize("option", [{"precision": "bf16-mixed"}, {"accumulate_grad_batches": 2}], ids=str)
def test_penalty_counts_as_the_loss_does(option, monkeypatch):
    gradients = []

    class Read(Leaky):
        def on_before_optimizer_step(self, optimizer):
            gradients.append(self.encoder.weight.grad.clone())

    batches = Batches(list(loader(64, 32))[: option.get("accumulate_grad_batches", 1)])
    minimizer = Sum()
    monkeypatch.setattr(MIPenalty, "_ready", lambda self, dims, device: minimizer)
    fit(Read(), penalty(), batches, **option, max_steps=1)
    by_hand = Leaky()
    with torch.autocast("cpu", torch.bfloat16, enabled="precision" in option):
        losses = [by_hand.training_step(part, 0) + by_hand(part["x"]).sum().float() for part in batches]
    (sum(losses) / len(batches)).backward()
    rtol = 2**-6 if "precision" in option else 1e-5  # bfloat16 has 8 bits
    torch.testing.assert_close(gradients[0], by_hand.encoder.weight.grad, rtol=rtol, atol=1e-5)
    assert minimizer.num_batches == len(batches)


def test_labels_are_removed_as_one_hot_rows():
    callback = penalty("batch.label", num_classes=2)
    fit(Leaky(), callback, max_steps=2)
    assert callback.minimizer.mi_loss.critic.y_dim == 2
    assert 0 <= callback.minimizer.num_batches == 2


def test_resume_is_exact(tmp_path):
    whole, first, second = Leaky(), Leaky(), Leaky()
    fit(whole, callback := penalty(), max_epochs=2)
    fitted = fit(first, penalty(), max_epochs=1)
    fitted.save_checkpoint(tmp_path / "a.ckpt")
    torch.manual_seed(99)
    resumed = penalty()
    trainer(callbacks=[resumed], max_epochs=2).fit(second, loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert equal(weights(whole), weights(second))
    assert equal(weights(callback.minimizer), weights(resumed.minimizer))
    assert callback.estimate == pytest.approx(resumed.estimate)


def test_lag_is_logged_after_a_check():
    logger = RecordingLogger()
    fit(Leaky(), penalty(check_every=3), logger=logger, max_steps=6)
    assert len(logger.curve("penalty/encoder/batch.nuisance")) == 6
    assert len(logger.curve("penalty/encoder/batch.nuisance_lag")) == 3


def test_hooks_do_not_stay():
    module = Leaky()
    fit(module, penalty(), max_steps=2)
    assert not module.encoder._forward_hooks


class Twice(Leaky):
    def training_step(self, batch, batch_idx):
        self(batch["x"])
        return super().training_step(batch, batch_idx)


class Never(Leaky):
    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.head(batch["x"]), batch["nuisance"])


class Manual(Leaky):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


@pytest.mark.parametrize(
    ("module", "callback", "error", "message"),
    [
        (Leaky, lambda: MIPenalty("decoder", "batch.nuisance"), WatchError, "Did you mean"),
        (Leaky, lambda: penalty("batch.age"), WatchError, "'age'"),
        (Leaky, lambda: penalty("batch.label"), WatchError, "num_classes=2"),
        (Leaky, lambda: penalty("batch.label", num_classes=1), WatchError, "label 1"),
        (Leaky, lambda: penalty("batch.nuisance", num_classes=2), WatchError, "without labels"),
        (Leaky, lambda: MIPenalty("batch.x", "batch.nuisance"), WatchError, "without a gradient"),
        (Twice, penalty, WatchError, "two outputs"),
        (Never, penalty, WatchError, "did not run"),
        (Manual, penalty, MisconfigurationException, "MIMinimizer"),
    ],
    ids=["layer", "entry", "labels", "classes", "numbers", "no gradient", "twice", "never", "manual"],
)
def test_what_cannot_be_minimized_raises(module, callback, error, message):
    made = module()
    if message == "Did you mean":
        message = "no submodule of this name"
    with pytest.raises(error, match=message):
        fit(made, callback())
    assert not made.encoder._forward_hooks


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight": -1.0}, ValueError, "at least 0"),
        ({"y": "encoder"}, ValueError, "twice"),
        ({"steps": 0}, ValueError, "steps"),
        ({"bound": bounds.DV}, TypeError, "bound"),
        ({"regularizer": 0.1}, TypeError, "regularizer"),
        ({"num_classes": 0}, ValueError, "num_classes"),
        ({"y": "outputs.z"}, ValueError, "outputs"),
        ({"bound": bounds.L1Out(), "regularizer": None}, ValueError, "GaussianConditional"),
        ({"bound": bounds.NWJ(), "regularizer": regularizers.Squared(0.1, target=1.0)}, ValueError, "target"),
    ],
    ids=["weight", "same", "steps", "a class", "a number", "classes", "outputs", "no density", "target"],
)
def test_wrong_arguments_raise(options, error, message):
    with pytest.raises(error, match=message):
        penalty(**options)
