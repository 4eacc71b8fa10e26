"""The facts about Lightning's loops in `_compat.lightning_loops`; checkpoints/test_exact_resume.py covers restarts."""

import logging
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch

from lightning_mi._compat import lightning_loops
from tests.helpers.small_module import draw, fit, make

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def test_batches_done_counts_every_batch():
    assert lightning_loops.batches_done(None) == 0
    fitted = fit(make(), draw(*[8] * 6), accumulate_grad_batches=3, max_epochs=2)
    assert lightning_loops.batches_done(fitted) == 12
    assert lightning_loops.current_batch_index(fitted) == 11


def test_pending_work_after_a_batch():
    class Pending(L.Callback):
        found: tuple[str | None, ...] = ()
        stops = False

        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = self.stops
            self.found = (*self.found, lightning_loops.pending_after_batch(trainer))

    found = []
    for options in ({}, {"limit_val_batches": 0}, {"val_check_interval": 1}):
        callback = Pending()
        fit(make(), draw(8, 8), draw(8), callbacks=callback, **options)
        found.append(callback.found)
    assert found == [(None, "validation"), (None, "epoch end"), ("validation", "validation")]
    stopping = Pending()
    stopping.stops = True
    fit(make(), draw(8, 8), draw(8), callbacks=stopping, val_check_interval=1)
    assert stopping.found == (None,)


def test_transferred_batches_pass_all_hooks():
    module, order = make(), []

    def hook(name):
        def record(batch, loader):
            order.append(name)
            return batch

        return record

    module.on_before_batch_transfer, module.on_after_batch_transfer = hook("before"), hook("after")
    batches = draw(8)
    fitted = fit(module, batches)
    order.clear()
    views = lightning_loops.transfer_batch(fitted, module, batches.batches[0])
    assert order == ["before", "after"]
    assert all(torch.equal(view, given) for view, given in zip(views, batches.batches[0], strict=True))


def test_the_attached_trainer_is_that_of_the_fit():
    module = make()
    assert lightning_loops.attached_trainer(module) is None
    fitted = fit(module)
    assert lightning_loops.attached_trainer(module) is fitted


def test_both_dictionaries_of_hyper_parameters_are_found():
    saved = lightning_loops.hyper_parameters(make())
    assert len(saved) == 2
    assert all(values["on_non_finite"] == "raise" for values in saved)


def test_cloud_advertisement_is_dropped():
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = list(logger.filters)
    lightning_loops.silence_cloud_advertisement()
    records = [
        logger.makeRecord(logger.name, logging.INFO, "", 0, text, (), None) for text in ("Tip: For seamless cloud", "x")
    ]
    assert [bool(logger.filter(record)) for record in records] == [False, True]
    logger.filters[:] = before
    source = Path(L.__file__).parent.rglob("*.py")
    assert any("Tip: For seamless cloud" in path.read_text() for path in source)
