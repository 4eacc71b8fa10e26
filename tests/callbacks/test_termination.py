"""SIGTERM saves where the training is, and ends it with a status that schedulers requeue."""

import os
import signal

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_mi.callbacks import SaveAtTermination
from lightning_mi.data.progress import batches_done
from tests.small_module import Batches, draw, equal, make, trainer, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
]


class Resumable(Batches):
    """Batches that go on where training stands."""

    def __iter__(self):
        done = batches_done(self.trainer) % len(self)
        return iter(self.batches[done:])

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Tell(L.Callback):
    """Sends the signal in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def fit(module, *callbacks, **kwargs):
    given = trainer(callbacks=list(callbacks), enable_checkpointing=bool(callbacks), max_epochs=2)
    batches = Resumable(draw(8, 8, 8, 8).batches)
    batches.trainer = given
    given.fit(module, batches, **kwargs)


@pytest.mark.parametrize("own_folder", [True, False])
def test_it_saves_after_the_step_exits_with_143_and_the_resumed_training_is_the_whole_one(own_folder, tmp_path):
    whole, told, resumed = make(), make(), make()
    fit(whole)
    before = signal.getsignal(signal.SIGTERM)
    keep = [] if own_folder else [ModelCheckpoint(tmp_path, save_top_k=0)]
    with pytest.raises(SystemExit) as ended:
        fit(told, *keep, SaveAtTermination(tmp_path if own_folder else None), Tell(2))
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    path = tmp_path / "last-terminated.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 3
    fit(resumed, ckpt_path=path, weights_only=True)
    assert equal(weights(resumed), weights(whole))


def test_a_training_that_is_not_told_ends_as_ever(tmp_path):
    fit(make(), SaveAtTermination(tmp_path))
    assert os.listdir(tmp_path) == []
