"""Interrupted and resumed trainings see the batches that an uninterrupted one sees, and end with the same weights."""

import lightning.pytorch as L
import pytest
import torch

from lightning_mi._compat.lightning_loops import batch_in_force, batches_done
from lightning_mi.data import GaussianDataModule

STEPS, EPOCHS = 8, 2  # two stairs of 4 batches an epoch


class Recorder(L.LightningModule):
    """Keeps every batch that it is trained on; ``fail_in_step`` breaks one training step before its update."""

    def __init__(self, fail_in_step=None):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1, bias=False)
        torch.nn.init.ones_(self.layer.weight)
        self.fail_in_step = fail_in_step
        self.seen, self.steps = [], []

    def on_train_start(self):
        self.done_at_start = batches_done(self.trainer)

    def training_step(self, batch, batch_idx):
        if len(self.seen) == self.fail_in_step:
            raise InterruptedError
        self.seen.append(batch)
        self.steps.append(batch_in_force(self.trainer))
        x, y = batch
        return self.layer(x * y).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveIn(L.Callback):
    """Saves a checkpoint in one hook, once the given number of batches has been trained on."""

    def __init__(self, hook, batches, path):
        self.batches, self.path = batches, path
        setattr(self, hook, self._save)

    def _save(self, trainer, module, *_):
        if len(module.seen) == self.batches:
            trainer.save_checkpoint(self.path)


def fit(module, *callbacks, num_workers=0, ckpt_path=None, **kwargs):
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **{"max_epochs": EPOCHS, "val_check_interval": 2, **kwargs},
    )
    data = GaussianDataModule(
        dim=3, mi=[0.5, 1.0], steps_per_mi=STEPS // 2, batch_size=4, num_workers=num_workers, val_batches=2
    )
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer


def assert_same_batches(seen, expected):
    assert len(seen) == len(expected)
    for (x, y), (x_expected, y_expected) in zip(seen, expected, strict=True):
        assert torch.equal(x, x_expected)
        assert torch.equal(y, y_expected)


@pytest.fixture(scope="module")
def uninterrupted():
    module = Recorder()
    fit(module)
    assert len(module.seen) == STEPS * EPOCHS
    assert len({x[0, 0].item() for x, _ in module.seen}) == STEPS * EPOCHS  # fresh in each step of each epoch
    return module


@pytest.mark.parametrize(
    ("hook", "batches"),
    [
        ("on_train_batch_end", 3),  # where ModelCheckpoint(every_n_train_steps=...) saves
        ("on_validation_end", 4),  # mid-epoch validation
        ("on_train_batch_end", STEPS),  # last batch of an epoch, before it is closed
        ("on_validation_end", STEPS),
        ("on_train_epoch_end", STEPS),
        ("on_train_batch_start", STEPS + 2),
        ("on_train_batch_end", STEPS + 3),  # in the second epoch
    ],
)
def test_resumed_training_sees_the_batches_of_an_uninterrupted_one(hook, batches, uninterrupted, tmp_path):
    path = tmp_path / "saved.ckpt"
    fit(Recorder(), SaveIn(hook, batches, path))

    resumed = Recorder()
    trainer = fit(resumed, ckpt_path=path)

    assert_same_batches(resumed.seen, uninterrupted.seen[batches:])
    assert torch.equal(resumed.layer.weight, uninterrupted.layer.weight)
    assert resumed.done_at_start == batches
    assert resumed.steps == list(range(batches, STEPS * EPOCHS))
    assert trainer.current_epoch == EPOCHS
    assert trainer.global_step == STEPS * EPOCHS


def test_the_batch_of_a_failed_step_is_trained_on_again(uninterrupted, tmp_path):
    path = tmp_path / "failed.ckpt"
    with pytest.raises(InterruptedError):
        fit(Recorder(fail_in_step=5), SaveIn("on_exception", 5, path))

    resumed = Recorder()
    fit(resumed, ckpt_path=path)

    assert_same_batches(resumed.seen, uninterrupted.seen[5:])
    assert resumed.steps == list(range(5, STEPS * EPOCHS))
    assert torch.equal(resumed.layer.weight, uninterrupted.layer.weight)


def test_resume_with_workers_sees_the_batches_of_an_uninterrupted_training_without(uninterrupted, tmp_path):
    path = tmp_path / "saved.ckpt"
    first = Recorder()
    fit(first, SaveIn("on_train_batch_end", 3, path), num_workers=2, max_steps=3, limit_val_batches=0)
    assert_same_batches(first.seen, uninterrupted.seen[:3])

    resumed = Recorder()
    fit(resumed, num_workers=2, ckpt_path=path, max_epochs=1, limit_val_batches=0)

    assert_same_batches(resumed.seen, uninterrupted.seen[3:STEPS])


def test_short_epochs_continue_the_staircase_instead_of_starting_it_again(uninterrupted):
    module = Recorder()
    fit(module, limit_train_batches=3, max_epochs=4, val_check_interval=1.0)
    assert_same_batches(module.seen, uninterrupted.seen[:12])


def test_accumulated_gradients_still_take_one_fresh_batch_a_step(uninterrupted):
    module = Recorder()
    trainer = fit(module, accumulate_grad_batches=4, max_epochs=1)
    assert trainer.global_step == STEPS // 4
    assert_same_batches(module.seen, uninterrupted.seen[:STEPS])
