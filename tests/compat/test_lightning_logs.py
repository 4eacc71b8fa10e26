"""The facts about Lightning's logging in `_compat.lightning_logs`."""

import lightning.pytorch as L
import pytest
import torch

from lightning_mi import regularizers
from lightning_mi._compat import lightning_logs, lightning_loops
from tests.helpers.small_module import RecordingLogger, draw, fit, make

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


class StepRecorder(L.Callback):
    """Records callback metrics and facts about the logging after each batch."""

    def __init__(self):
        self.rows, self.steps, self.logged, self.accumulating = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append({name: value.item() for name, value in trainer.callback_metrics.items()})
        self.steps.append(lightning_logs.logged_step(trainer))
        self.logged.append(lightning_logs.is_logged(trainer))
        self.accumulating.append(lightning_loops.is_accumulating(trainer))


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"enable_progress_bar": True}])
def test_fast_logs_equal_those_of_lightning(monkeypatch, options):
    log, found = L.LightningModule.log, []
    for fast in (True, False):
        monkeypatch.setattr(lightning_logs, "FAST_LOGS", fast)
        calls: list[str] = []

        def counted(self, name, *args, calls=calls, **kwargs):
            calls.append(name)
            log(self, name, *args, **kwargs)

        monkeypatch.setattr(L.LightningModule, "log", counted)
        callback, logger = StepRecorder(), RecordingLogger()
        given = {"max_epochs": 2, "logger": logger, "log_every_n_steps": 2, "callbacks": callback} | options
        fit(make(regularizer=regularizers.Squared(0.1)), draw(*[8] * 6), draw(8, 8), **given)
        found.append((callback.rows, logger.rows, calls.count("train/mi")))
    assert found[0][:2] == found[1][:2]
    assert (found[0][2], found[1][2]) == (2, 12)  # the first step of an epoch, and every step
    assert len({row["train/mi"] for row in found[0][0]}) == 12


def test_the_logged_step_counts_batches_that_update():
    callback = StepRecorder()
    fit(make(), draw(*[8] * 6), log_every_n_steps=2, accumulate_grad_batches=2, callbacks=callback)
    assert callback.steps == [0, 0, 1, 1, 2, 2]
    assert callback.accumulating == [True, False] * 3
    updates = [logged for logged, waits in zip(callback.logged, callback.accumulating, strict=True) if not waits]
    assert updates == [False, True, False]


def test_python_numbers_are_logged():
    class Constant(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, batch_idx):
            lightning_logs.log_step(self, "train/count", float(batch_idx), prog_bar=False)
            return self.weight * 1.0

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    assert fit(Constant(), draw(8, 8, 8)).callback_metrics["train/count"] == 2.0


class Rows(L.Callback):
    """Records the pending row in the hooks that run just before Lightning logs it."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append(lightning_logs.pending_log_row(trainer))

    def on_train_epoch_end(self, trainer, *_):
        self.epochs.append(lightning_logs.pending_log_row(trainer))


def test_pending_row_is_the_one_that_lightning_logs_next():
    rows, logger = Rows(), RecordingLogger()
    fit(make(), draw(*[8] * 4), logger=logger, log_every_n_steps=2, callbacks=rows, max_epochs=2)
    pending = [row for row in rows.steps if row is not None]
    assert [step for _, step in pending] == [1, 3, 5, 7]
    assert [(step, row) for row, step in pending] == [(step, row) for step, row in logger.rows if "train/mi" in row]
    assert [step for _, step in rows.epochs] == [3, 7]
