"""Commands read the checkpoints of earlier runs: resume, evaluation, prediction."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from tests.helpers.command_line import QUIET, Watch, checkpoints, error_of, short


class Writer(BasePredictionWriter):
    """A prediction writer of the user."""

    def __init__(self):
        super().__init__("batch")

    def write_on_batch_end(self, *_):
        Path("mine.txt").touch()


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # the resumed run writes into a new folder
def test_fit_resumes_from_the_last_checkpoint_and_prints_it(here, capsys):
    assert short("fit") == 0
    [first] = checkpoints(here)
    trained = torch.load(first, weights_only=True)["state_dict"]
    capsys.readouterr()
    assert short("fit", "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    assert f"checkpoint: {first.relative_to(here)} (step 6)" in capsys.readouterr().err
    assert Watch.step == 6
    assert {name: value.tolist() for name, value in Watch.weights.items()} == {
        name: value.tolist() for name, value in trained.items()
    }
    assert len(checkpoints(here)) == 2


def test_evaluation_of_untrained_weights_names_flag_and_file(here, capsys):
    for command in ("validate", "test", "fit"):
        assert short(command) == 0
        assert "untrained" not in capsys.readouterr().err  # there is no checkpoint
    [file] = checkpoints(here)
    for command in ("validate", "test"):
        assert short(command) == 0
        notice = capsys.readouterr().err
        assert "untrained" in notice
        assert f"`--ckpt_path last` reads {file.relative_to(here)}, the newest" in notice
        assert short(command, "--ckpt_path=last") == 0
        assert "untrained" not in capsys.readouterr().err


def test_best_reads_the_checkpoint_with_the_best_metric(here, capsys):
    callback = "lightning.pytorch.callbacks.ModelCheckpoint"
    options = [f"--trainer.callbacks+={callback}", "--trainer.callbacks.monitor=val/mi", "--trainer.callbacks.mode=max"]
    options += ["--trainer.callbacks.save_last=true", "--trainer.callbacks.save_top_k=-1"]
    options += [
        "--trainer.callbacks.auto_insert_metric_name=false",
        "--trainer.callbacks.filename={epoch}-{val/mi:.6f}",
    ]
    assert short("fit", *options, "--trainer.max_epochs=3") == 0
    saved = [path for path in checkpoints(here) if path.stem != "last"]
    assert len(saved) == 3
    best = max(saved, key=lambda path: float(path.stem.rpartition("-")[2]))
    capsys.readouterr()
    assert short("test", "--ckpt_path=best") == 0
    assert f"checkpoint: {best.relative_to(here)} " in capsys.readouterr().err


def test_best_reads_the_held_out_checkpoint_and_last_the_newest(here, capsys):
    # z=1000: no later epoch is better by that margin.
    options = ["--trainer.callbacks+=lightning_mi.callbacks.HeldOutCheckpoint", "--trainer.callbacks.z=1000"]
    options += ["--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"]
    assert short("fit", *options, "--trainer.max_epochs=3") == 0
    names = {"best": "held_out-epoch=0-step=6.ckpt", "last": "epoch=2-step=18.ckpt"}
    assert {path.name for path in checkpoints(here)} == set(names.values())
    for alias, name in names.items():
        capsys.readouterr()
        assert short("test", f"--ckpt_path={alias}") == 0
        assert f"/{name} (step " in capsys.readouterr().err


@pytest.mark.parametrize(("command", "alias"), [("fit", "last"), ("test", "best")])
def test_missing_checkpoint_raises_with_the_folder(command, alias, here, capsys):
    message = error_of([command, "--config", "onehot", *QUIET, f"--ckpt_path={alias}"], capsys)
    assert "lightning_mi_runs/onehot/lightning_logs" in message


def test_hyperparameters_come_from_the_command_line(here, capsys):
    mine = "--model.bound=lightning_mi.bounds.MINE"
    assert short("fit", mine, "--model.bound.ema_rate=0.5") == 0
    [file] = checkpoints(here)
    trained = torch.load(file, weights_only=True)["state_dict"]
    capsys.readouterr()
    assert short("test", f"--ckpt_path={file}", mine, "--model.bound.ema_rate=0.25") == 0
    assert Watch.module.bound.ema_rate == 0.25
    assert torch.equal(Watch.weights["mi_loss.critic.first.weight"], trained["mi_loss.critic.first.weight"])
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("checkpoint: model")]
    assert notes == [
        "checkpoint: model.bound.ema_rate: 0.5 in the checkpoint, 0.25 here; the command line's value is used"
    ]


def test_checkpoint_with_code_is_not_read(here, capsys):
    torch.save({"state_dict": {}, "payload": Path}, "hostile.ckpt")
    message = error_of(["test", "--config", "onehot", *QUIET, "--ckpt_path=hostile.ckpt"], capsys)
    assert "objects other than plain data" in message


@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")  # of loaders that are not DataLoaders
def test_evaluation_reads_the_last_checkpoint(here):
    assert short("fit") == 0
    [trained] = checkpoints(here)
    state = torch.load(trained, weights_only=True)["state_dict"]
    [weight] = [value for name, value in state.items() if name.endswith("critic.first.weight")]
    for command, options in (("validate", ()), ("test", ()), ("predict", (f"--trainer.callbacks+={__name__}.Writer",))):
        assert short(command, "--ckpt_path=last", *options) == 0, command
        assert torch.equal(Watch.module.critic.first.weight, weight), command
    assert Path("mine.txt").exists()  # a configured prediction writer is used alone
    assert list(Path("lightning_mi_runs/onehot").glob("predictions*")) == []


def test_predict_writes_files_by_default(here, capsys):
    pytest.importorskip("lightning_mi.callbacks.prediction_writer")
    assert short("fit") == 0
    assert short("predict", "--ckpt_path=last") == 0
    folder = Path("lightning_mi_runs/onehot/predictions")
    assert f"predictions: written to {folder}" in capsys.readouterr().err
    assert [path for path in folder.rglob("*") if path.is_file()]


def test_missing_predict_dataloader_gives_one_message(here, capsys, monkeypatch):
    monkeypatch.delattr("lightning_mi.data.base.AbstractStreamDataModule.predict_dataloader")
    assert short("predict", f"--trainer.callbacks+={__name__}.Writer") == 2
    assert "error: `predict_dataloader` must be implemented" in capsys.readouterr().err
