"""`fit`, `validate`, `test` and `predict` from the command line, with a few steps."""

import copy
import re
import signal
import sys
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BasePredictionWriter

from lightning_mi.cli.main import main
from lightning_mi.utilities.recipe_registry import find_file, list_files

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


class Writer(BasePredictionWriter):
    """A prediction writer of the user."""

    def __init__(self):
        super().__init__("batch")

    def write_on_batch_end(self, *_):
        Path("mine.txt").touch()


class Interrupt(Callback):
    """Sends SIGINT to this process in the given call of a hook."""

    def __init__(self, hook, call=2):
        self.calls, self.call = 0, call
        setattr(self, hook, self._send)

    def _send(self, *_, **__):
        self.calls += 1
        if self.calls == self.call:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder; also restores `sys.path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def short(command, *options, steps=6):
    """Run a command on the recipe `onehot` with a few steps."""
    watch = f"--trainer.callbacks={__name__}.Watch"
    data = [f"--data.steps={steps}", "--data.batch_size=8"]
    return main([command, "--config", "onehot", *QUIET, watch, *data, *options])


def checkpoints(folder):
    return sorted(path for path in folder.rglob("*.ckpt"))


class FakeImages:
    """A torchvision dataset of random pixels, twelve of each class."""

    def __init__(self, shape, num_classes):
        self.shape, self.classes = shape, [str(i) for i in range(num_classes)]

    def __call__(self, root, train):
        self.targets = list(range(len(self.classes))) * 12
        pixels = np.random.default_rng(int(train)).integers(0, 256, (len(self.targets), *self.shape), dtype=np.uint8)
        self.data = torch.tensor(pixels) if len(self.shape) == 2 else pixels
        return copy.copy(self)


@pytest.fixture
def fake_torchvision(monkeypatch):
    """Replaces the datasets that would be downloaded."""
    fakes = {"FashionMNIST": ((28, 28), 10), "CIFAR10": ((32, 32, 3), 10), "CIFAR100": ((32, 32, 3), 100)}
    for name, arguments in fakes.items():
        monkeypatch.setattr(f"lightning_mi.data.images.datasets.datasets.{name}", FakeImages(*arguments))


def faster(recipe):
    """Options that make a ResNet-18 fast on a CPU: small images and batches, no worker processes."""
    if "cifar" not in recipe:
        return []
    # fast_dev_run always validates, and Lightning warns about missing validation data.
    size = ["--data.image_size=32", "--data.val_fraction=0.1"] if "fast" not in recipe else []
    return [*size, "--data.batch_size=10", "--data.num_workers=0", "--trainer.precision=32-true"]


@pytest.mark.usefixtures("fake_torchvision")
@pytest.mark.parametrize("recipe", [recipe.name for recipe in list_files("recipe")])
def test_recipe_runs_with_its_launch_line(recipe, here):
    assert f"lightning-mi fit --config {recipe}" in find_file(recipe, "recipe").path.read_text()
    short = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    assert main(["fit", "--config", recipe, *short, *faster(recipe)]) == 0


def test_recipe_values_have_their_own_line_and_a_comment():
    for recipe in list_files("recipe"):
        lines = recipe.path.read_text().splitlines()
        values = [ln for ln in lines if ln.strip() and not ln.startswith("#") and not ln.rstrip().endswith(":")]
        assert [line for line in values if "{" in line or "[" in line] == [], recipe.name
        assert [line for line in values if "#" not in line and not is_self_evident(line)] == [], recipe.name


def is_self_evident(line):
    """A class path, a number equal to another value, or one item of a commented list."""
    return line.strip().startswith(("- ", "class_path", "x_dim", "y_dim", "num_classes"))


def test_fit_writes_a_reusable_configuration_into_the_output_folder(here):
    assert short("fit") == 0
    run = here / "lightning_mi_runs" / "onehot" / "lightning_logs" / "version_0"
    assert [path.parent.parent for path in checkpoints(here)] == [run]
    assert main(["fit", f"-c={run / 'config.yaml'}", "--trainer.fast_dev_run=true"]) == 0


def test_command_line_overrides_the_recipe(here):
    assert short("fit", "--model.bound", "lightning_mi.bounds.NWJ", "--model.regularizer", "null") == 0
    module = Watch.module
    parts = (module.critic, module.pairs, module.bound)
    assert [type(part).__name__ for part in parts] == ["JointCritic", "IndependentMarginal", "NWJ"]
    assert module.regularizer is None
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.SGD, 0.1)


def test_modules_in_the_current_folder_can_be_imported(here):
    Path("my_project.py").write_text(
        "from lightning_mi import MIEstimationModule\n\n\nclass MyModule(MIEstimationModule):\n    pass\n"
    )
    assert short("fit", "--model", "my_project.MyModule") == 0
    assert type(Watch.module).__module__ == "my_project"
    assert type(Watch.module.critic).__name__ == "JointCritic"  # with the arguments of the recipe


@pytest.mark.parametrize("name", ["mine.yaml", "folder/mine"])
def test_configuration_file_is_launched_by_its_path(here, name):
    Path("folder").mkdir()
    assert main(["cp", "onehot", name]) == 0
    options = yaml.safe_load(Path(name).read_text())
    options["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 0.25
    Path(name).write_text(yaml.safe_dump(options))
    watch = f"--trainer.callbacks={__name__}.Watch"
    assert main(["fit", "--config", name, *QUIET, watch, "--data.steps=2"]) == 0
    assert Watch.module.optimizers(use_pl_optimizer=False).param_groups[0]["lr"] == 0.25


# Errors: one message, exit status 2, no file written.


def error_of(arguments, capsys):
    """The only error message of a failing command."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    [message] = [line for line in error.splitlines() if "error: " in line]
    assert list(Path().rglob("lightning_mi_runs")) == []
    return message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "gausian"], r"no recipe called 'gausian'\. .*gaussian, onehot"),
        (["-c", "nowhere/mine.yaml"], "got --config nowhere/mine.yaml: there is no such file"),
        (["--config=gaussian.yaml"], "got --config gaussian.yaml: there is no such file"),
        (["--config=nowhere/mine"], "no recipe called 'nowhere/mine'.* needs its suffix: nowhere/mine.yaml"),
        (["--config"], "expected one argument"),
        (["-c", "gaussian", "--trainer.max_epochs", "many"], '"trainer.max_epochs": Expected int; Given value: many'),
        (["-c", "gaussian", "--data.batch_size", "1"], "batch_size=1"),
        ([], r"fit\.model"),
        (["-c", "gaussian", "--trainer.default_root_dir", "file/runs"], "cannot write to the output folder file/runs"),
    ],
)
def test_invalid_arguments_give_one_message(arguments, message, here, capsys):
    Path("file").write_text("not a folder")
    assert re.search(message, error_of(["fit", *arguments], capsys))
    assert [path.name for path in here.iterdir()] == ["file"]


@pytest.mark.parametrize("key", ["max_epochs", "hidden", "lr", "trainer"])
def test_misspelled_key_is_in_the_message(key, here, capsys):
    recipe = find_file("gaussian", "recipe").path.read_text()
    assert recipe.count(f"{key}:") == 1
    Path("broken.yaml").write_text(recipe.replace(f"{key}:", f"{key}x:"))
    assert f"{key}x" in error_of(["fit", "--config", "broken.yaml"], capsys)


def test_invalid_or_incomplete_yaml_gives_one_message(here, capsys):
    Path("broken.yaml").write_text("trainer:\n  max_epochs: [1\n")
    assert "line 2" in error_of(["fit", "--config", "broken.yaml"], capsys)
    options = yaml.safe_load(find_file("gaussian", "recipe").path.read_text())
    del options["data"]
    Path("no_data.yaml").write_text(yaml.safe_dump(options))
    assert "fit.data" in error_of(["fit", "--config", "no_data.yaml"], capsys)


def test_debug_variable_gives_the_traceback(here, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEBUG", "true")
    with pytest.raises(Exception, match="batch_size=1") as raised:
        main(["fit", "--config", "gaussian", "--data.batch_size", "1"])
    assert raised.value.__cause__ is not None
    with pytest.raises(ArgumentError, match="max_epochs"):
        main(["fit", "--config", "gaussian", "--trainer.max_epochs", "many"])


def test_help_shows_examples_before_options(here, capsys):
    assert main(["test", "--help"]) == 0
    output = capsys.readouterr().out
    assert output.index("lightning-mi test --config gaussian --ckpt_path last") < output.index("--trainer.max_epochs")


# Checkpoints of earlier runs.


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


def test_fit_prints_estimate_standard_error_and_truth(here, capsys):
    assert short("fit") == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("val/")]
    logged = Watch.metrics
    estimate, error, truth = (logged[f"val/{name}"] for name in ("mi", "mi_standard_error", "true_mi"))
    assert line == f"val/mi {estimate:.2f} +- {error:.2f} nats (truth: {truth:.2f})"
    assert f"{truth:.2f}" == "2.77"


def test_fit_prints_a_line_for_each_data_loader(here, capsys):
    Path("my_data.py").write_text(
        "from lightning_mi.data import OneHotDataModule\n\n\n"
        "class Data(OneHotDataModule):\n"
        "    def val_dataloader(self):\n"
        "        return [self.test_dataloader(), super().val_dataloader()]\n"
    )
    assert short("fit", "--data=my_data.Data") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("val/mi")]
    names = [f"val/mi/dataloader_idx_{i}" for i in range(2)]
    assert [line.partition(" ")[::2] for line in lines] == [
        (name, f"{Watch.metrics[name]:.2f} +- {Watch.metrics[error]:.2f} nats (truth: 2.77)")
        for name in names
        for error in [name.replace("mi/", "mi_standard_error/")]
    ]


def test_fit_without_validation_prints_no_estimate(here, capsys):
    assert short("fit", "--trainer.limit_val_batches=0") == 0
    assert "val/mi" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluation_of_untrained_weights_prints_a_notice(command, here, capsys):
    assert short(command) == 0
    assert "untrained" not in capsys.readouterr().err  # there is no checkpoint
    assert short("fit") == 0
    assert "untrained" not in capsys.readouterr().err
    [file] = checkpoints(here)
    assert short(command) == 0
    notice = capsys.readouterr().err
    assert "untrained" in notice
    assert f"are in {file.parent.relative_to(here)}: `--ckpt_path best`" in notice
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
