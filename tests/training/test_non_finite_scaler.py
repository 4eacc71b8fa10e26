"""A non-finite step under a gradient scaler is skipped or undone."""

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from lightning_mi import bounds
from tests.helpers.bad_batches import with_bad_batch, without_bad_batch
from tests.helpers.small_module import DIM, draw, equal, fit, make, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.* gave .* = (nan|-?inf):lightning_mi.MINumericalWarning"),
]


def baseline():
    return bounds.TUBA(nn.Linear(DIM, 1))


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_is_skipped_under_a_scaler(fused):
    made = {"optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=fused)}
    module, plain = (make(encoder=nn.BatchNorm1d(DIM), on_non_finite="skip", **made) for _ in range(2))
    for fitted, batches in ((module, with_bad_batch()), (plain, without_bad_batch())):
        fit(fitted, batches, plugins=[Overflow("bf16-mixed", "cpu")], callbacks=[Use(torch.amp.GradScaler("cpu"))])
    assert module._guard.skipped == 1
    assert equal(weights(module), weights(plain))


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")
@pytest.mark.parametrize(("bound", "policy"), [(lambda: bounds.MINE(ema_rate=0.25), "raise"), (baseline, "off")])
def test_an_fp16_overflow_undoes_the_step(bound, policy):
    """With a scaler on the CPU and a scale that makes the first gradients infinite."""
    module = make(bound(), encoder=nn.BatchNorm1d(DIM), on_non_finite=policy)
    before = weights(module)
    scaler = torch.amp.GradScaler("cpu", init_scale=3e38, growth_interval=1000)
    fit(module, draw(8), plugins=[Overflow("bf16-mixed", "cpu")], callbacks=[Use(scaler)])
    assert scaler.get_scale() == pytest.approx(1.5e38)
    assert equal(weights(module), before)
    fit(module, draw(8), plugins=[Overflow("bf16-mixed", "cpu")], callbacks=[Use(torch.amp.GradScaler("cpu"))])
    assert not equal(weights(module), before)


class Overflow(MixedPrecision):
    """A scaler on the CPU, which has no fp16 matrix products: Lightning allows a scaler for fp16 only."""

    def pre_backward(self, tensor, module):
        return super().pre_backward(tensor * (1e6 if self.scaler.get_scale() > 1e38 else 1.0), module)


class Use(L.Callback):
    def __init__(self, scaler):
        self.scaler = scaler

    def setup(self, trainer, pl_module, stage):
        trainer.precision_plugin.scaler = self.scaler
