"""The samples of a batch: over passes and over ranks."""

import lightning.pytorch as L
import pytest

from lightning_mi.data import ImageDataModule
from lightning_mi.data.batching import FixedBatches, ShuffledBatches
from tests.helpers.recording import Recorder, assert_same_batches, fit, quiet_trainer


def all_batches(batches):
    return [batches.batch(step) for step in range(len(batches))]


def test_ranks_train_on_shards_of_the_global_batch():
    whole = ShuffledBatches(50, 12, seed=3)
    shards = [ShuffledBatches(50, 6, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    assert [len(whole), *map(len, shards)] == [4, 4, 4]
    for step in (0, 3, 4, 11):
        assert [key for shard in shards for key in shard.batch(step)] == whole.batch(step)


def test_passes_repeat_no_sample_and_differ():
    batches = ShuffledBatches(50, 12, seed=0)
    passes = [[key for step in range(4) for key in batches.batch(4 * number + step)] for number in (0, 1)]
    assert [len(set(keys)) for keys in passes] == [48, 48]
    assert [{key // 50 for key in keys} for keys in passes] == [{0}, {1}]
    assert [key % 50 for key in passes[0]] != [key % 50 for key in passes[1]]


def test_batches_do_not_depend_on_earlier_calls():
    batches = ShuffledBatches(50, 12, seed=0)
    forwards = [batches.batch(step) for step in range(12)]
    assert [ShuffledBatches(50, 12, seed=0).batch(step) for step in (11, 0, 5)] == [forwards[s] for s in (11, 0, 5)]
    assert ShuffledBatches(50, 12, seed=1).batch(0) != forwards[0]


@pytest.mark.parametrize(("num_samples", "world_size"), [(20, 1), (21, 1), (21, 2), (22, 3), (23, 2), (25, 3)])
def test_ranks_evaluate_every_sample_once_without_padding(num_samples, world_size):
    ranks = [FixedBatches(num_samples, 4, rank=r, world_size=world_size, keep_all=True) for r in range(world_size)]
    assert sorted(key for rank in ranks for batch in all_batches(rank) for key in batch) == list(range(num_samples))
    for rank, whole in enumerate(ranks):
        paired = all_batches(FixedBatches(num_samples, 4, rank=rank, world_size=world_size))
        assert paired == [batch for batch in all_batches(whole) if len(batch) > 1]


def test_too_few_samples_for_a_batch_raise():
    with pytest.raises(
        ValueError, match=r"batch_size=8 on 2 rank\(s\): .* needs 16 training samples, and there are 15"
    ):
        ShuffledBatches(15, 8, seed=0, world_size=2)


def test_overfitting_repeats_its_batches():
    module = Recorder(64)
    data = ImageDataModule("digits", batch_size=10, limit_train=65, eval_batch_size=70)
    fit(module, data, overfit_batches=2, max_epochs=3, val_check_interval=1.0)
    assert_same_batches(module.recorded, module.recorded[:2] * 3)


class Counter(L.LightningModule):
    """Counts the test samples."""

    def on_test_epoch_start(self):
        self.count = 0

    def test_step(self, batch, batch_idx):
        self.count += len(batch[1])


def test_training_without_validation_runs():
    module, data, counter = Recorder(64), ImageDataModule("digits", val_fraction=0), Counter()
    trainer = quiet_trainer(max_epochs=1)
    with pytest.warns(UserWarning, match="Total length of `list` across ranks is zero"):
        trainer.fit(module, data)
    assert len(module.recorded) == 14
    trainer.test(counter, data, verbose=False)
    assert counter.count == 359
