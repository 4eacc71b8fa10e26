"""A resumed training sees the batches of an uninterrupted one and ends with the same weights."""

import pytest
import torch

from lightning_mi.data import GaussianDataModule, ImageDataModule
from tests.helpers.recording import Recorder, SaveIn, assert_same_batches, fit

EPOCHS = 2


def shift(image):
    """A random transform: digits rolled sideways."""
    return image.roll(int(torch.randint(8, ())), dims=2)


class Stream:
    """Two levels of 4 batches an epoch."""

    batches, features = 8, 3

    @staticmethod
    def data(num_workers=0):
        return GaussianDataModule(3, [0.5, 1.0], steps_per_mi=4, batch_size=4, num_workers=num_workers, val_batches=2)


class Images:
    """Six randomly transformed batches of a pass over 65 digits."""

    batches, features = 6, 64

    @staticmethod
    def data(num_workers=0):
        return ImageDataModule(
            "digits", batch_size=10, limit_train=65, transform=shift, num_workers=num_workers, eval_batch_size=70
        )


@pytest.fixture(scope="module", params=[Stream, Images])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(kind):
    module = Recorder(kind.features)
    fit(module, kind.data())
    assert len(module.recorded) == kind.batches * EPOCHS
    assert len(kind.data().train_dataloader()) == kind.batches
    assert len({batch[0].sum().item() for batch in module.recorded}) == kind.batches * EPOCHS
    return module


# Batches done in epochs, plus single batches: ModelCheckpoint saves in on_train_batch_end.
@pytest.mark.parametrize(
    ("hook", "epochs", "batches"),
    [
        ("on_train_batch_end", 0, 3),
        ("on_validation_end", 0, 4),
        ("on_train_batch_end", 1, 0),
        ("on_validation_end", 1, 0),
        ("on_train_epoch_end", 1, 0),
        ("on_train_batch_start", 1, 2),
        ("on_train_batch_end", 1, 3),
    ],
)
def test_resume_continues_with_the_next_batch(hook, epochs, batches, kind, uninterrupted, tmp_path):
    done, path = kind.batches * epochs + batches, tmp_path / "saved.ckpt"
    fit(Recorder(kind.features), kind.data(), SaveIn(hook, done, path))

    resumed = Recorder(kind.features)
    trainer = fit(resumed, kind.data(), ckpt_path=path)

    assert_same_batches(resumed.recorded, uninterrupted.recorded[done:])
    assert torch.equal(resumed.layer.weight, uninterrupted.layer.weight)
    assert resumed.done_at_start == done
    assert resumed.steps == list(range(done, kind.batches * EPOCHS))
    assert (trainer.current_epoch, trainer.global_step) == (EPOCHS, kind.batches * EPOCHS)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_failed_step_is_repeated_after_resume(num_workers, kind, uninterrupted, tmp_path):
    failing = Recorder(kind.features, fail_in_step=kind.batches + 2)
    save = SaveIn("on_exception", kind.batches + 2, tmp_path / "failed.ckpt")
    with pytest.raises(InterruptedError):
        fit(failing, kind.data(num_workers), save)
    assert_same_batches(failing.recorded, uninterrupted.recorded[: kind.batches + 2])

    resumed = Recorder(kind.features)
    fit(resumed, kind.data(num_workers), ckpt_path=tmp_path / "failed.ckpt")

    assert_same_batches(resumed.recorded, uninterrupted.recorded[kind.batches + 2 :])
    assert resumed.steps == list(range(kind.batches + 2, kind.batches * EPOCHS))
    assert torch.equal(resumed.layer.weight, uninterrupted.layer.weight)


def test_short_epochs_continue_through_the_data(kind, uninterrupted):
    module = Recorder(kind.features)
    fit(module, kind.data(), limit_train_batches=3, max_epochs=4, val_check_interval=1.0)
    assert_same_batches(module.recorded, uninterrupted.recorded[:12])


def test_gradient_accumulation_uses_every_batch(kind, uninterrupted):
    module = Recorder(kind.features)
    trainer = fit(module, kind.data(), accumulate_grad_batches=2, max_epochs=1)
    assert trainer.global_step == kind.batches // 2
    assert_same_batches(module.recorded, uninterrupted.recorded[: kind.batches])
