"""A module that records its training batches, and trainings that fail, save and resume at a chosen batch."""

import lightning.pytorch as L
import torch

from lightning_mi._compat.lightning_loops import batches_done, current_batch_index


def recorded(calls, function):
    """The function, with the positional arguments of each call appended to `calls`."""

    def record(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return record


class Recorder(L.LightningModule):
    """Records every training batch; ``fail_in_step`` raises in one training step, before its update."""

    def __init__(self, features, fail_in_step=None):
        super().__init__()
        self.layer = torch.nn.Linear(features, 1, bias=False)
        torch.nn.init.ones_(self.layer.weight)
        self.fail_in_step = fail_in_step
        self.recorded, self.steps = [], []

    def on_train_start(self):
        self.done_at_start = batches_done(self.trainer)

    def training_step(self, batch, batch_idx):
        if len(self.recorded) == self.fail_in_step:
            raise InterruptedError
        self.recorded.append(batch)
        self.steps.append(current_batch_index(self.trainer))
        return self.layer(batch[0].flatten(1)).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class SaveIn(L.Callback):
    """Saves a checkpoint in a hook after the given number of training batches."""

    def __init__(self, hook, batches, path):
        self.batches, self.path = batches, path
        setattr(self, hook, self._save)

    def _save(self, trainer, module, *_):
        if len(module.recorded) == self.batches:
            trainer.save_checkpoint(self.path)


def quiet_trainer(**options):
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(accelerator="cpu", logger=False, **quiet, **options)


def fit(module, data, *callbacks, ckpt_path=None, **options):
    """Train two epochs with mid-epoch validation."""
    options = {"max_epochs": 2, "val_check_interval": 2, "num_sanity_val_steps": 0} | options
    trainer = quiet_trainer(callbacks=list(callbacks), **options)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer


def assert_same_batches(actual, expected):
    assert len(actual) == len(expected)
    for batch, other in zip(actual, expected, strict=True):
        assert all(torch.equal(part, same) for part, same in zip(batch, other, strict=True))
