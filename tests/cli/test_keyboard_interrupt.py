"""Ctrl-C during `fit`."""

import signal

import pytest
from lightning.pytorch import Callback

from tests.helpers.command_line import checkpoints, short


class Interrupt(Callback):
    """Sends SIGINT to this process in the given call of a hook."""

    def __init__(self, hook, call=2):
        self.calls, self.call = 0, call
        setattr(self, hook, self._send)

    def _send(self, *_, **__):
        self.calls += 1
        if self.calls == self.call:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_before_zero_grad", "state_dict"])  # the last in a save
def test_ctrl_c_saves_and_prints_the_resume_command(hook, here, capsys):
    options = [f"--trainer.callbacks+={__name__}.Interrupt", f"--trainer.callbacks.hook={hook}"]
    options += ["--trainer.callbacks.call=1", "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"]
    options += ["--trainer.callbacks.every_n_train_steps=2"]
    assert short("fit", *options) == 130
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "Resume with: lightning-mi fit --config onehot " in error
    assert error.rstrip().endswith(f"{options[-1]} --ckpt_path last")
    assert "last-terminated.ckpt" in {path.name for path in checkpoints(here)}


def test_ctrl_c_before_the_first_batch_saves_nothing(here, capsys):
    options = [f"--trainer.callbacks+={__name__}.Interrupt", "--trainer.callbacks.hook=on_fit_start"]
    assert short("fit", *options, "--trainer.callbacks.call=1") == 130
    error = capsys.readouterr().err
    assert "no checkpoint was saved" in error
    assert "Traceback" not in error
    assert checkpoints(here) == []
