"""Loading a state dict restores the behaviour; no state of a training outlives it."""

import copy
import warnings
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.tuner import Tuner

from lightning_mi import MIEstimationModule, bounds, critics, regularizers
from lightning_mi.callbacks import AdaptiveRegularizer, StabilityMonitor
from tests.helpers.small_module import DIM, RecordingLogger, draw, equal, fit, make, trainer, weights

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def calibrated(**kwargs):
    return make(critic=critics.CalibratedCritic(critics.BilinearCritic(DIM, DIM)), **kwargs)


def log_normalizer(module, batch):
    return float(module.step(batch).terms.log_normalizer.detach())


def test_loading_uncalibrated_weights_calibrates_again():
    module, (batch, other) = calibrated(), draw(16, 16).batches
    start = copy.deepcopy(module.state_dict())
    assert log_normalizer(module, batch) == pytest.approx(0.0, abs=1e-5)
    assert not module.critic.needs_calibration
    offset = module.critic.offset.item()
    assert log_normalizer(module, other) != pytest.approx(0.0, abs=1e-3)
    module.load_state_dict(start)
    assert module.critic.needs_calibration
    assert log_normalizer(module, other) == pytest.approx(0.0, abs=1e-5)
    assert module.critic.offset.item() != offset


def test_buffers_reset_in_place_calibrate_again():
    module, (batch,) = calibrated(), draw(16).batches
    module.step(batch)
    with torch.no_grad():
        module.critic.calibrated.fill_(False)
        module.critic.offset.zero_()
    assert log_normalizer(module, batch) == pytest.approx(0.0, abs=1e-5)
    twin = copy.deepcopy(module)
    assert not twin.critic.needs_calibration


def test_compiled_critic_is_calibrated():
    module, (batch,) = calibrated(), draw(16).batches
    module.critic = torch.compile(module.critic, backend="eager")
    assert log_normalizer(module, batch) == pytest.approx(0.0, abs=1e-5)
    assert bool(module.critic.calibrated)


@pytest.mark.filterwarnings("ignore::lightning_mi.MINumericalWarning")
def test_skipped_first_step_postpones_calibration():
    batches = draw(16, 16)
    batches.batches[0][0][3, 1] = float("nan")
    module = calibrated(on_non_finite="skip")
    fit(module, batches)
    assert bool(module.critic.calibrated)
    assert module._guard.skipped == 1


def tuned(module, **kwargs):
    fitted = trainer(max_epochs=2, logger=RecordingLogger(), **kwargs)
    Tuner(fitted).lr_find(module, draw(*[16] * 8), num_training=4, min_lr=1e-3, max_lr=1e-2, update_attr=False)
    return fitted


def test_critic_is_calibrated_again_after_lr_find(tmp_path):
    module = calibrated()
    fitted = tuned(module, default_root_dir=tmp_path)
    assert module.critic.needs_calibration
    fitted.fit(module, draw(*[16] * 8))
    assert bool(module.critic.calibrated)


class RandomRows(L.Callback):
    """Draws a random number at the first batch of a fit."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0:
            self.drawn = torch.rand(1).item()


def test_fit_after_lr_find_starts_from_its_seed(tmp_path):
    found = []
    for with_tuner in (False, True):
        module, rows = make(), RandomRows()
        if with_tuner:
            tuned(module, default_root_dir=tmp_path)
            assert module._resuming.pending  # loaded by lr_find
        torch.manual_seed(7)
        fit(module, draw(16, 16), callbacks=rows)
        found.append(rows.drawn)
    assert found[0] == found[1]


def test_state_dict_holds_the_regularizer_factor():
    module = make(regularizer=regularizers.Squared(0.5))
    module.regularizer.factor = 8.0
    other = make(regularizer=regularizers.Squared(0.5))
    other.load_state_dict(module.state_dict())
    assert other.regularizer.current_weight() == 4.0


def test_weights_without_a_regularizer_load():
    plain, regularized = make(), make(regularizer=regularizers.Squared(0.5))
    regularized.regularizer.factor = 8.0
    regularized.load_state_dict(plain.state_dict())
    assert regularized.regularizer.factor == 1.0


def test_folds_start_with_the_same_weight():
    module = make(regularizer=regularizers.Squared(0.1))
    start, ends = copy.deepcopy(module.state_dict()), []
    for _ in range(2):
        module.load_state_dict(start)
        adaptive = AdaptiveRegularizer(band=(-1e-6, 1e-6), every_n_steps=1)
        fit(module, draw(*[16] * 4), callbacks=adaptive)
        ends.append((adaptive.factor, weights(module)))
    assert ends[0][0] == ends[1][0] > 1.0
    assert equal(ends[0][1], ends[1][1])


def test_monitor_resets_at_each_fit():
    batches = draw(*[16] * 4)
    batches.batches[1][0][0, 0] = float("nan")
    monitor = StabilityMonitor(window=20, every_n_steps=1, action="stop")
    with pytest.warns(UserWarning, match="explodes"):
        fit(make(), batches, callbacks=monitor)
    assert monitor.exploded_at == 2
    fit(make(), draw(16, 16), callbacks=monitor)
    assert monitor.exploded_at is None


class TwoOptimizers(MIEstimationModule):
    """An optimizer for the encoder and one for the critic."""

    automatic_optimization = False

    def configure_optimizers(self):
        return torch.optim.SGD(self.encoders.parameters(), 0.1), torch.optim.SGD(self.critic.parameters(), 0.1)

    def training_step(self, batch, batch_idx):
        outputs = super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(outputs["loss"])
        for optimizer in self.optimizers():
            optimizer.step()
        return outputs


def test_warm_up_counts_batches_not_optimizer_steps():
    weights_by_batch = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            weights_by_batch.append(pl_module.regularizer.current_weight())

    warm_up = regularizers.Squared(weight=regularizers.LinearWarmup(weight=1.0, steps=4))
    module = make(cls=TwoOptimizers, encoder=torch.nn.Linear(DIM, DIM), regularizer=warm_up)
    fit(module, draw(*[16] * 6), callbacks=Look())
    assert weights_by_batch == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_two_optimizers_log_as_often_as_one():
    logger = RecordingLogger()
    module = make(cls=TwoOptimizers, encoder=torch.nn.Linear(DIM, DIM))
    fit(module, draw(*[16] * 6), logger=logger, log_every_n_steps=2)
    assert len(logger.curve("train/mi")) == 3
    assert [step for step, row in logger.rows if "train/mi" in row] == [1, 3, 5]


def test_monitor_counts_batches_with_two_optimizers():
    monitor = StabilityMonitor(window=40, every_n_steps=2)
    module = make(bounds.DV(), cls=TwoOptimizers, encoder=torch.nn.Linear(DIM, DIM))
    fit(module, draw(*[16] * 6), callbacks=monitor)
    assert [block.step for block in monitor._blocks] == [2, 4, 6]


def test_each_fit_warns_of_constant_scores():
    module = make(encoder=torch.nn.Sequential(torch.nn.Linear(DIM, DIM), torch.nn.Threshold(1e9, 0.0)))
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(module, draw(16, 16))
        assert sum("All pairs have the same score" in str(warning.message) for warning in caught) == 1


class Minimax(TwoOptimizers):
    """Calls ``step`` by itself: the critic maximizes, the encoder minimizes."""

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        encoder, critic = optimizers
        for optimizer, sign in ((critic, 1.0), (encoder, -1.0)):
            self.zero_grad()
            self.manual_backward(sign * self.step(batch).loss)
            optimizer.step()


def infinite_scores(batches):
    batches.batches[1][0][2, 1] = float("inf")
    return batches


@pytest.mark.filterwarnings("ignore::lightning_mi.MINumericalWarning")
def test_custom_training_step_is_guarded_by_its_gradients():
    batches = draw(*[16] * 4)
    module = make(cls=Minimax, encoder=torch.nn.Linear(DIM, DIM), on_non_finite="skip")
    fit(module, infinite_scores(batches))
    assert module._guard.skipped >= 1
    assert all(bool(value.isfinite().all()) for value in weights(module).values())


def test_epoch_without_logged_steps_has_no_training_metrics():
    module = make(cls=Minimax, encoder=torch.nn.Linear(DIM, DIM))
    assert not fit(module, draw(*[16] * 4)).callback_metrics


def test_gradient_scaler_handles_custom_training_steps():
    module = make()
    module._guard.start(SimpleNamespace(callbacks=[], precision_plugin=SimpleNamespace(scaler=object()), world_size=1))
    (parameter, *_) = module.parameters()
    parameter.grad = torch.full_like(parameter, float("inf"))
    module._guard.decide(module, torch.optim.SGD(module.parameters(), 0.1), module.train_metrics)
    assert module._guard.skipped == 0
