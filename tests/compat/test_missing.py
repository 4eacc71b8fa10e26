"""Releases of Lightning or torch without a name: `_compat` warns and falls back."""

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_mi._compat import lightning_logs, lightning_loops, torch_names
from lightning_mi.exceptions import MIWarning
from tests.helpers.small_module import draw, fit, make, trainer

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


class Missing:
    """An object without attributes, in place of a part of Lightning."""


def test_missing_names_warn_and_fall_back(monkeypatch):
    given = trainer(accumulate_grad_batches=2)
    loop = given.fit_loop
    monkeypatch.delattr(type(loop), "_should_accumulate")
    monkeypatch.delattr(type(loop.epoch_loop), "_should_check_val_fx")
    monkeypatch.delattr(given, "_logger_connector")
    monkeypatch.delattr(loop.epoch_loop, "_batches_that_stepped")
    # As at the end of a batch.
    monkeypatch.setattr(given, "_val_check_time_interval", None, raising=False)
    loop._data_fetcher, given.training, loop.epoch_loop.batch_progress.total.processed = object(), True, 1
    expected = {
        lightning_logs.logged_step: ("_batches_that_stepped", 0),
        lightning_loops.is_accumulating: ("_should_accumulate", True),
        lightning_loops.pending_after_batch: ("_should_check_val_fx", None),
        lightning_logs.pending_log_row: ("_logger_connector", None),
    }
    for function, (name, fallback) in expected.items():
        with pytest.warns(MIWarning, match=name):
            assert function(given) == fallback


def test_missing_transfer_hook_warns_and_skips_it(monkeypatch):
    module = make()
    fitted = fit(module, draw(8))
    monkeypatch.delattr(L.LightningModule, "_on_before_batch_transfer")
    with pytest.warns(MIWarning, match="_on_before_batch_transfer"):
        assert len(lightning_loops.transfer_batch(fitted, module, draw(4).batches[0])) == 2


def test_missing_file_writer_warns(tmp_path):
    with pytest.warns(MIWarning, match="HPARAMS table"):
        torch_names.add_summaries(Missing(), [])
    writer = TensorBoardLogger(tmp_path).experiment
    torch_names.add_summaries(writer, [])  # the name exists
    writer.close()


def test_missing_private_names_warn_and_mean_inactive(monkeypatch):
    monkeypatch.delattr(torch._C, "_are_functorch_transforms_active")
    monkeypatch.delattr(torch.autograd.forward_ad, "_current_level")
    for check, name in (
        (torch_names.is_functorch_active, "functorch"),
        (torch_names.is_forward_mode_active, "_current_level"),
    ):
        with pytest.warns(MIWarning, match=name):
            assert not check()
    assert torch_names.tensor_version(object()) is None
