"""InformationPlane on two ranks."""

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_mi.callbacks import InformationPlane
from tests.helpers.labelled import ddp
from tests.helpers.small_module import equal, trainer, weights
from tests.helpers.watched import digits, noisy

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 and later
]


class Histories(L.Callback):
    """Writes the history of each rank."""

    def __init__(self, folder, plane):
        self.folder, self.plane = folder, plane

    def on_fit_end(self, trainer, pl_module):
        torch.save(self.plane.state_dict(), f"{self.folder}/{trainer.global_rank}.pt")


def trained(*callbacks, batch_size=32, **kwargs):
    module = noisy()
    torch.manual_seed(1)
    fitted = trainer(callbacks=list(callbacks), max_epochs=2, **kwargs)
    fitted.fit(module, *digits(train=512, val=256, batch_size=batch_size))
    return weights(module), fitted.callback_metrics


def two_ranks():
    return ddp(use_distributed_sampler=True)


def test_weights_are_bitwise_equal_and_ranks_read_the_same(tmp_path):
    plane = InformationPlane(["net.*"], noise=0.3)
    plain, _ = trained(**two_ranks())
    watched, _ = trained(plane, Histories(tmp_path, plane), **two_ranks())
    assert equal(plain, watched)
    histories = [torch.load(tmp_path / f"{rank}.pt", weights_only=True)["history"] for rank in range(2)]
    assert histories[0] == histories[1]
    sizes = {tuple(reading[-2:]) for _, _, readings in histories[0] for reading in readings.values()}
    assert sizes == {(512, 256)}


def test_two_ranks_read_as_one_does():
    read = [
        trained(InformationPlane(["net.3"]), **kwargs)[1]["plane/net.3/label"]
        for kwargs in ({"batch_size": 64}, two_ranks())
    ]
    assert float(read[1]) == pytest.approx(float(read[0]), abs=0.15)


def test_checkpoint_holds_the_batches_of_both_ranks(tmp_path):
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=5)
    trained(InformationPlane(["net.3"]), saver, enable_checkpointing=True, **two_ranks())
    [path] = tmp_path.glob("*.ckpt")
    state = torch.load(path, weights_only=True)["callbacks"]
    [recent] = [entry["recent"] for key, entry in state.items() if key.startswith("InformationPlane")]
    assert [sum(len(batch[1]) for batch in batches) for batches in recent] == [224, 224]  # of step 15: 7 in epoch 2
