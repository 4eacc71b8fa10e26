"""Run `lightning-mi` in this process, with a few steps."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from lightning_mi.cli.main import main

QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.callbacks=null",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


class Watch(Callback):
    """Records the module, weights and metrics of the last command."""

    module: Any = None
    weights: Any = None
    step: int
    metrics: dict[str, float]

    def setup(self, trainer, pl_module, stage):
        Watch.module = pl_module

    def on_train_start(self, trainer, pl_module):
        Watch.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        Watch.step = trainer.global_step

    def on_fit_end(self, trainer, pl_module):
        Watch.metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}

    def on_test_start(self, trainer, pl_module):
        Watch.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


WATCH = f"--trainer.callbacks={__name__}.Watch"


def short(command, *options, steps=6):
    """Run a command on the recipe `onehot` with a few steps."""
    data = [f"--data.steps={steps}", "--data.batch_size=8"]
    return main([command, "--config", "onehot", *QUIET, WATCH, *data, *options])


def checkpoints(folder):
    return sorted(path for path in folder.rglob("*.ckpt"))


def error_of(arguments, capsys):
    """The only error message of a failing command."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    [message] = [line for line in error.splitlines() if "error: " in line]
    assert list(Path().rglob("lightning_mi_runs")) == []
    return message
