"""Canaries for the private names of Lightning that the package touches, and what rests on them."""

import lightning.pytorch as L
import pytest
import torch

from lightning_mi import _compat, regularizers
from tests.helpers.small_module import Kept, draw, fit, make

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


class Seen(L.Callback):
    """What callbacks find after each batch, and where Lightning says the training stands."""

    def __init__(self):
        self.rows, self.steps, self.logged, self.accumulating = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append({name: value.item() for name, value in trainer.callback_metrics.items()})
        self.steps.append(_compat.logged_step(trainer))
        self.logged.append(_compat.is_logged(trainer))
        self.accumulating.append(_compat.is_accumulating(trainer))


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"enable_progress_bar": True}])
def test_fast_logs_are_those_of_lightning(monkeypatch, options):
    log, found = L.LightningModule.log, []
    for fast in (True, False):
        monkeypatch.setattr(_compat, "FAST_LOGS", fast)
        calls = []

        def counted(self, name, *args, calls=calls, **kwargs):
            calls.append(name)
            log(self, name, *args, **kwargs)

        monkeypatch.setattr(L.LightningModule, "log", counted)
        seen, kept = Seen(), Kept()
        given = {"max_epochs": 2, "logger": kept, "log_every_n_steps": 2, "callbacks": seen} | options
        fit(make(regularizer=regularizers.Squared(0.1)), draw(*[8] * 6), draw(8, 8), **given)
        found.append((seen.rows, kept.rows, calls.count("train/mi")))
    assert found[0][:2] == found[1][:2]
    assert (found[0][2], found[1][2]) == (2, 12)  # the first step of an epoch, and every step
    assert len({row["train/mi"] for row in found[0][0]}) == 12


def test_the_logged_step_counts_batches_that_update():
    seen = Seen()
    fit(make(), draw(*[8] * 6), log_every_n_steps=2, accumulate_grad_batches=2, callbacks=seen)
    assert seen.steps == [0, 0, 1, 1, 2, 2]
    assert seen.accumulating == [True, False] * 3
    assert [one for one, waits in zip(seen.logged, seen.accumulating, strict=True) if not waits] == [False, True, False]


def test_batches_done_counts_every_batch():
    assert _compat.batches_done(None) == 0
    fitted = fit(make(), draw(*[8] * 6), accumulate_grad_batches=3, max_epochs=2)
    assert _compat.batches_done(fitted) == 12
    assert _compat.batch_in_force(fitted) == 11


def test_a_value_of_another_device_or_kind_is_logged():
    class Constant(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, batch_idx):
            _compat.log_step(self, "train/count", float(batch_idx), prog_bar=False)
            return self.weight * 1.0

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    assert fit(Constant(), draw(8, 8, 8)).callback_metrics["train/count"] == 2.0


def test_the_attached_trainer_is_that_of_the_fit():
    module = make()
    assert _compat.attached_trainer(module) is None
    fitted = fit(module)
    assert _compat.attached_trainer(module) is fitted


def test_both_dictionaries_of_hyper_parameters_are_found():
    saved = _compat.hyper_parameters(make())
    assert len(saved) == 2
    assert all(values["on_non_finite"] == "raise" for values in saved)


def test_fused_optimizers_skip_by_the_flag_of_a_scaler():
    found = [_compat.supports_amp_scaling(torch.optim.Adam([torch.zeros(1)], fused=fused)) for fused in (True, False)]
    assert found == [True, False]


def test_a_compiled_module_gives_the_original():
    linear = torch.nn.Linear(2, 2)
    assert _compat.uncompiled(torch.compile(linear, backend="eager")) is linear
    assert _compat.uncompiled(linear) is linear
