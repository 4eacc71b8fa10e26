"""A training whose validations log given values, for tests of checkpoints and early stopping."""

import lightning.pytorch as L
import numpy as np
import torch

from lightning_mi.data import GaussianDataModule
from tests.helpers.small_module import Batches, trainer


class Script(L.LightningModule):
    """One weight, which counts the steps. Each validation logs the next row of given readings.

    Args:
        readings: (V, R) values by validation and name.
        errors: Standard errors, of a shape that broadcasts.
        names: R log names.
    """

    def __init__(self, readings, errors, names=("val/mi",)):
        super().__init__()
        self.readings = np.reshape(readings, (len(readings), -1))
        self.errors = np.broadcast_to(np.reshape(errors, (-1, 1)), self.readings.shape)
        self.names = names
        self.count = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return -self.count

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        row = 0 if self.trainer.sanity_checking else self.trainer.current_epoch
        for name, value, error in zip(self.names, self.readings[row], self.errors[row], strict=True):
            shown = 99.0 if self.trainer.sanity_checking else value
            self.log(name, torch.tensor(shown, dtype=torch.float64))
            self.log(f"{name}_standard_error", torch.tensor(error, dtype=torch.float64))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def play(readings, *callbacks, errors=0.1, names=("val/mi",), sanity=0, ckpt_path=None, epochs=None, **kwargs):
    """A training with one step per reading."""
    module, loader = Script(readings, errors, names), Batches([torch.zeros(1)])
    fitted = trainer(
        callbacks=list(callbacks),
        enable_checkpointing=True,
        max_epochs=len(readings) if epochs is None else epochs,
        num_sanity_val_steps=sanity,
        **kwargs,
    )
    fitted.fit(module, loader, Batches(loader.batches * 2), ckpt_path=ckpt_path, weights_only=True)
    return fitted


def step_of(checkpoint):
    """The number of steps of a checkpoint's weights."""
    return int(torch.load(checkpoint, weights_only=True)["state_dict"]["count"])


def gaussian(batch_size=8):
    """A small data module with validation and test batches."""
    return GaussianDataModule(dim=3, mi=1.0, steps_per_mi=4, batch_size=batch_size, val_batches=5, test_batches=4)
