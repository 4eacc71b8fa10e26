"""Which samples a batch holds: over passes, over ranks, and after an interruption."""

import lightning.pytorch as L
import pytest
import torch

from lightning_mi.data import ImageDataModule
from lightning_mi.data.batching import FixedBatches, ShuffledBatches

EPOCHS, BATCHES = 2, 6


def ordered(batches):
    return [batches.batch(step) for step in range(len(batches))]


@pytest.mark.parametrize("step", [0, 3, 4, 11])
def test_two_ranks_train_on_the_halves_of_what_one_rank_trains_on(step):
    whole = ShuffledBatches(50, 12, seed=3)
    halves = [ShuffledBatches(50, 6, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    assert [len(whole), *map(len, halves)] == [4, 4, 4]
    assert [key for half in halves for key in half.batch(step)] == whole.batch(step)


def test_a_pass_holds_no_sample_twice_and_leaves_out_less_than_a_batch():
    batches = ShuffledBatches(50, 12, seed=0)
    indices = [key % 50 for batch in ordered(batches) for key in batch]
    assert len(set(indices)) == len(indices) == 48


def test_batches_do_not_depend_on_which_were_asked_for_before():
    batches = ShuffledBatches(50, 12, seed=0)
    forwards = [batches.batch(step) for step in range(12)]
    assert [ShuffledBatches(50, 12, seed=0).batch(step) for step in (11, 0, 5)] == [forwards[s] for s in (11, 0, 5)]
    assert ShuffledBatches(50, 12, seed=1).batch(0) != forwards[0]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_samples", [20, 21, 22, 23, 25])
def test_ranks_evaluate_every_sample_once_without_padding(num_samples, world_size):
    ranks = [FixedBatches(num_samples, 4, rank=r, world_size=world_size, keep_all=True) for r in range(world_size)]
    keys = [key for rank in ranks for batch in ordered(rank) for key in batch]
    assert sorted(keys) == list(range(num_samples))

    for rank, whole in enumerate(ranks):
        paired = ordered(FixedBatches(num_samples, 4, rank=rank, world_size=world_size))
        assert paired == [batch for batch in ordered(whole) if len(batch) > 1]


def test_too_few_samples_for_a_batch_say_how_many_there_are():
    with pytest.raises(
        ValueError, match=r"batch of 8 on each of 2 process\(es\) needs 16 training samples, but .* 15\."
    ):
        ShuffledBatches(15, 8, seed=0, world_size=2)


class Recorder(L.LightningModule):
    """Keeps every batch that it is trained on; ``fail_in_step`` breaks one training step before its update."""

    def __init__(self, fail_in_step=None):
        super().__init__()
        self.layer = torch.nn.Linear(64, 1, bias=False)
        torch.nn.init.ones_(self.layer.weight)
        self.fail_in_step = fail_in_step
        self.seen = []

    def training_step(self, batch, batch_idx):
        if len(self.seen) == self.fail_in_step:
            raise InterruptedError
        self.seen.append(batch)
        return self.layer(batch[0].flatten(1)).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class SaveIn(L.Callback):
    """Saves a checkpoint in one hook, once the given number of batches has been trained on."""

    def __init__(self, hook, batches, path):
        self.batches, self.path = batches, path
        setattr(self, hook, self._save)

    def _save(self, trainer, module, *_):
        if len(module.seen) == self.batches:
            trainer.save_checkpoint(self.path)


def shift(image):
    """A random transform: digits rolled sideways."""
    return image.roll(int(torch.randint(8, ())), dims=2)


def fit(module, *callbacks, num_workers=0, ckpt_path=None, **options):
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **{"max_epochs": EPOCHS, "val_check_interval": 2, **options},
    )
    data = ImageDataModule(
        "digits", batch_size=10, limit_train=65, transform=shift, num_workers=num_workers, eval_batch_size=70
    )
    trainer.fit(module, data, ckpt_path=ckpt_path)
    assert len(data.train_dataloader()) == BATCHES
    return trainer


def assert_same_batches(seen, expected):
    assert len(seen) == len(expected)
    for batch, other in zip(seen, expected, strict=True):
        assert all(torch.equal(part, same) for part, same in zip(batch, other, strict=True))


@pytest.fixture(scope="module")
def uninterrupted():
    module = Recorder()
    fit(module)
    assert len(module.seen) == BATCHES * EPOCHS
    return module


@pytest.mark.parametrize(
    ("hook", "batches"),
    [
        ("on_train_batch_end", 3),
        ("on_validation_end", 4),
        ("on_train_batch_end", BATCHES),
        ("on_train_epoch_end", BATCHES),
        ("on_train_batch_end", BATCHES + 3),
    ],
)
def test_resumed_training_sees_the_samples_and_transforms_of_an_uninterrupted_one(
    hook, batches, uninterrupted, tmp_path
):
    fit(Recorder(), SaveIn(hook, batches, tmp_path / "saved.ckpt"))
    resumed = Recorder()
    trainer = fit(resumed, ckpt_path=tmp_path / "saved.ckpt")
    assert_same_batches(resumed.seen, uninterrupted.seen[batches:])
    assert torch.equal(resumed.layer.weight, uninterrupted.layer.weight)
    assert trainer.global_step == BATCHES * EPOCHS


def test_a_failed_step_is_trained_on_again_with_workers_too(uninterrupted, tmp_path):
    with pytest.raises(InterruptedError):
        fit(Recorder(fail_in_step=8), SaveIn("on_exception", 8, tmp_path / "failed.ckpt"), num_workers=1)
    resumed = Recorder()
    fit(resumed, ckpt_path=tmp_path / "failed.ckpt", num_workers=1)
    assert_same_batches(resumed.seen, uninterrupted.seen[8:])


def test_short_epochs_go_on_through_the_data(uninterrupted):
    module = Recorder()
    fit(module, limit_train_batches=3, max_epochs=4, val_check_interval=1.0)
    assert_same_batches(module.seen, uninterrupted.seen)


def test_overfitting_repeats_its_batches():
    module = Recorder()
    fit(module, overfit_batches=2, max_epochs=3, val_check_interval=1.0)
    assert_same_batches(module.seen, module.seen[:2] * 3)


class Counter(L.LightningModule):
    def on_test_epoch_start(self):
        self.count = 0

    def test_step(self, batch, batch_idx):
        self.count += len(batch[1])

    def on_test_epoch_end(self):
        self.log("count", float(self.count))


def test_training_without_validation_runs():
    module = Recorder()
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="Total length of `list` across ranks is zero"):
        trainer.fit(module, ImageDataModule("digits", val_fraction=0))
    assert len(module.seen) == 14
    trainer.test(Counter(), ImageDataModule("digits", val_fraction=0), verbose=False)
    assert trainer.callback_metrics["count"] == 359
