"""MIEstimationModule: calibration of the critic, optimizers, schedulers and mixed precision."""

from functools import partial

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn

from lightning_mi import bounds, critics, regularizers
from tests.helpers.small_module import DIM, STEP_NAMES, RecordingLogger, draw, fit, make, trainer

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def test_only_the_first_training_batch_calibrates_the_critic():
    critic = critics.CalibratedCritic(critics.BilinearCritic(DIM, DIM), scale=True)
    with torch.no_grad():
        critic.get_parameter("critic.weight").mul_(5)
    module, logger = make(bounds.NWJ(), critic=critic, optimizer=partial(torch.optim.SGD, lr=0.0)), RecordingLogger()
    trainer().validate(module, draw(8), verbose=False)
    assert not critic.calibrated
    batches = draw(8, 8)
    fit(module, batches, logger=logger)
    first, second = logger.curve("train/log_normalizer")
    assert first == pytest.approx(0, abs=1e-5)
    assert abs(second) > 1e-2
    t = critic.pairwise(*batches.batches[0]).detach().numpy().astype(np.float64)
    assert t[~np.eye(8, dtype=bool)].std(ddof=1) == pytest.approx(1, rel=1e-5)


def test_a_calibrated_critic_starts_at_the_regularizer_target():
    critic, logger = critics.CalibratedCritic(critics.BilinearCritic(DIM, DIM)), RecordingLogger()
    module = make(critic=critic, regularizer=regularizers.Squared(target=2.0))
    fit(module, draw(8), logger=logger)
    assert logger.curve("train/log_normalizer") == [pytest.approx(2, abs=1e-5)]


def test_a_module_without_trainable_parameters_is_an_error():
    for encoder in (None, nn.Linear(DIM, DIM).requires_grad_(False)):
        with pytest.raises(ValueError, match="Neither the encoder nor InnerProductCritic has a trainable parameter"):
            fit(make(critic=critics.InnerProductCritic(), encoder=encoder))


def test_adam_is_the_default_optimizer():
    module = make(bounds.TUBA(nn.Linear(DIM, 1)))
    fit(module)
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.Adam, 1e-3)
    module = make(optimizer=partial(torch.optim.SGD, lr=0.25))
    fit(module)
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.SGD, 0.25)


def test_a_learned_baseline_trains_and_a_frozen_encoder_does_not():
    baseline, frozen = nn.Linear(DIM, 1), nn.Linear(DIM, DIM).requires_grad_(False)
    before = baseline.weight.clone(), frozen.weight.clone()
    fit(make(bounds.TUBA(baseline), encoder=frozen))
    assert not torch.equal(baseline.weight, before[0])
    assert torch.equal(frozen.weight, before[1])


@pytest.mark.parametrize(("interval", "rate"), [("step", 0.125), ("epoch", 0.5)])
def test_a_scheduler_steps_each_step_or_each_epoch(interval, rate):
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    module = make(optimizer=partial(torch.optim.SGD, lr=1.0), scheduler=halve, scheduler_interval=interval)
    fit(module, draw(8, 8, 8))
    assert module.optimizers(use_pl_optimizer=False).param_groups[0]["lr"] == rate


def test_a_plateau_scheduler_gets_its_monitor():
    watch = partial(ReduceLROnPlateau, monitor="val/mi", mode="max", patience=0, factor=0.5)
    module = make(optimizer=partial(torch.optim.SGD, lr=0.0), scheduler=watch)  # nothing moves, so nothing improves
    module_trainer = fit(module, draw(8), draw(8), max_epochs=1)
    [config] = module_trainer.lr_scheduler_configs
    assert config.monitor == "val/mi"
    assert config.scheduler.best == pytest.approx(float(module_trainer.callback_metrics["val/mi"]))


class Precisions(L.Callback):
    """The types in the critic, and of the logged values."""

    def setup(self, trainer, pl_module, stage):
        self.hook = pl_module.critic.x_net[0].register_forward_hook(self._see)

    def _see(self, module, inputs, output):
        self.inside = output.dtype

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        scores = outputs["scores"].joint, outputs["scores"].marginal_values()
        self.outside = {value.dtype for value in (outputs["loss"], *outputs["terms"], *scores)}


def test_mixed_precision_keeps_the_terms_in_float32():
    precisions = Precisions()
    fitted = fit(make(regularizer=regularizers.Squared()), precision="bf16-mixed", callbacks=precisions)
    assert (precisions.inside, precisions.outside) == (torch.bfloat16, {torch.float32})
    assert {fitted.callback_metrics[name].dtype for name in STEP_NAMES} == {torch.float32}
