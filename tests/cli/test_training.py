"""`fit`, `validate`, `test` and `predict` through the real command line, on a handful of steps."""

import copy
import signal
import sys
from argparse import ArgumentError
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback

from lightning_mi.cli.main import main
from lightning_mi.data.images import datasets as image_sets
from lightning_mi.utilities.recipe_registry import find_file, list_files

QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.callbacks=null",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


class Watch(Callback):
    """Keeps the module and the datamodule of the last command, to look at what the command line built."""

    module = None
    weights = None

    def setup(self, trainer, pl_module, stage):
        Watch.module = pl_module

    def on_train_start(self, trainer, pl_module):
        Watch.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        Watch.step = trainer.global_step

    def on_fit_end(self, trainer, pl_module):
        Watch.metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}

    def on_test_start(self, trainer, pl_module):
        Watch.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


class Interrupt(Callback):
    """Sends SIGINT to this process in a hook, the given time it is called."""

    def __init__(self, hook, call=2):
        self.calls, self.call = 0, call
        setattr(self, hook, self._send)

    def _send(self, *_, **__):
        self.calls += 1
        if self.calls == self.call:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder; what the command line does to `sys.path` is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def short(command, *options, steps=6):
    """Onehot on a few steps, watched."""
    watch = f"--trainer.callbacks={__name__}.Watch"
    data = [f"--data.steps={steps}", "--data.batch_size=8"]
    return main([command, "--config", "onehot", *QUIET, watch, *data, *options])


def checkpoints(folder):
    return sorted(path for path in folder.rglob("*.ckpt"))


class FakeImages:
    """A torchvision dataset of random pixels, two of each class."""

    def __init__(self, shape, num_classes):
        self.shape, self.classes = shape, [str(i) for i in range(num_classes)]

    def __call__(self, root, train):
        self.targets = list(range(len(self.classes))) * 12
        pixels = np.random.default_rng(int(train)).integers(0, 256, (len(self.targets), *self.shape), dtype=np.uint8)
        self.data = torch.tensor(pixels) if len(self.shape) == 2 else pixels
        return copy.copy(self)


@pytest.fixture
def fake_torchvision(monkeypatch):
    """What cannot be downloaded while testing."""
    fakes = {"FashionMNIST": ((28, 28), 10), "CIFAR10": ((32, 32, 3), 10), "CIFAR100": ((32, 32, 3), 100)}
    for name, arguments in fakes.items():
        monkeypatch.setattr(image_sets.datasets, name, FakeImages(*arguments))


def faster(recipe):
    """A ResNet-18 on a CPU: small images and batches, and no workers to start."""
    if "cifar" not in recipe:
        return []
    # fast_dev_run validates whatever the recipe says, and Lightning warns where there is nothing to validate on.
    size = ["--data.image_size=32", "--data.val_fraction=0.1"] if "fast" not in recipe else []
    return [*size, "--data.batch_size=10", "--data.num_workers=0", "--trainer.precision=32-true"]


@pytest.mark.usefixtures("fake_torchvision")
@pytest.mark.parametrize("recipe", [recipe.name for recipe in list_files("recipe")])
def test_every_recipe_runs_as_its_launch_line_says(recipe, here):
    assert f"lightning-mi fit --config {recipe}" in find_file(recipe, "recipe").path.read_text()
    short = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    assert main(["fit", "--config", recipe, *short, *faster(recipe)]) == 0


@pytest.mark.parametrize("recipe", list_files("recipe"), ids=lambda recipe: recipe.name)
def test_every_value_of_a_recipe_stands_on_its_own_line_with_a_comment(recipe):
    lines = recipe.path.read_text().splitlines()
    values = [line for line in lines if not line.startswith("#") and line.strip() and not line.rstrip().endswith(":")]
    assert [line for line in values if "{" in line or "[" in line] == []
    explained = [line for line in values if "#" in line]
    assert [line for line in values if line not in explained and not is_self_evident(line)] == []


def is_self_evident(line):
    """A class named by its path, a number tied to another value, or one item of a list that is explained."""
    return line.strip().startswith(("- ", "class_path", "x_dim", "y_dim", "num_classes"))


def test_a_fit_writes_where_the_recipe_says_and_keeps_a_configuration_that_runs_again(here):
    assert short("fit") == 0
    run = here / "lightning_mi_runs" / "onehot" / "lightning_logs" / "version_0"
    assert [path.parent.parent for path in checkpoints(here)] == [run]
    assert main(["fit", "--config", str(run / "config.yaml"), "--trainer.fast_dev_run=true"]) == 0


def test_the_recipe_becomes_the_module_that_it_describes(here):
    assert short("fit") == 0
    module = Watch.module
    assert [type(part).__name__ for part in (module.critic, module.pairs, module.bound, module.regularizer)] == [
        "JointCritic",
        "IndependentMarginal",
        "DV",
        "Squared",
    ]
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.SGD, 0.1)


def test_the_command_line_overrides_the_recipe(here):
    assert short("fit", "--model.bound", "lightning_mi.bounds.NWJ", "--model.regularizer", "null") == 0
    assert type(Watch.module.bound).__name__ == "NWJ"
    assert Watch.module.regularizer is None


def test_a_subclass_in_a_file_of_the_current_folder_is_found(here):
    Path("my_project.py").write_text(
        "from lightning_mi import MIEstimationModule\n\n\nclass MyModule(MIEstimationModule):\n    pass\n"
    )
    assert short("fit", "--model", "my_project.MyModule") == 0
    assert type(Watch.module).__module__ == "my_project"
    assert type(Watch.module.critic).__name__ == "JointCritic"  # the recipe's arguments carry over


def test_a_copied_recipe_is_launched_by_its_file(here):
    assert main(["cp", "onehot", "mine.yaml"]) == 0
    options = yaml.safe_load(Path("mine.yaml").read_text())
    options["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 0.25
    Path("mine.yaml").write_text(yaml.safe_dump(options))
    watch = f"--trainer.callbacks={__name__}.Watch"
    assert main(["fit", "--config", "mine.yaml", *QUIET, watch, "--data.steps=2"]) == 0
    assert Watch.module.optimizers(use_pl_optimizer=False).param_groups[0]["lr"] == 0.25


# Mistakes: one message, a status that is not zero, nothing written.


def refused(arguments, capsys):
    """The one message of a command that fails."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    [message] = [line for line in error.splitlines() if "error: " in line]
    assert list(Path().rglob("lightning_mi_runs")) == []
    return message


def test_an_unknown_recipe_lists_the_known_ones(here, capsys):
    message = refused(["fit", "--config", "gausian"], capsys)
    assert "no recipe called 'gausian'" in message
    assert "gaussian, onehot" in message


def test_a_missing_configuration_file_is_named(here, capsys):
    assert "nowhere/mine.yaml: there is no such file" in refused(["fit", "-c", "nowhere/mine.yaml"], capsys)
    assert "gaussian.yaml: there is no such file" in refused(["fit", "--config=gaussian.yaml"], capsys)


@pytest.mark.parametrize("key", ["max_epochs", "batch_size", "hidden", "weight", "regularizer", "lr", "trainer"])
def test_a_misspelled_key_is_named(key, here, capsys):
    recipe = find_file("gaussian", "recipe").path.read_text()
    assert recipe.count(f"{key}:") == 1
    Path("broken.yaml").write_text(recipe.replace(f"{key}:", f"{key}x:"))
    assert f"{key}x" in refused(["fit", "--config", "broken.yaml"], capsys)


def test_broken_yaml_says_where(here, capsys):
    Path("broken.yaml").write_text("trainer:\n  max_epochs: [1\n")
    assert "line 2" in refused(["fit", "--config", "broken.yaml"], capsys)


def test_a_value_of_the_wrong_type_is_named_with_its_key(here, capsys):
    message = refused(["fit", "--config", "gaussian", "--trainer.max_epochs", "many"], capsys)
    assert 'Parser key "trainer.max_epochs": Expected int; Given value: many' in message


def test_a_value_that_a_class_refuses_is_explained_by_that_class(here, capsys):
    assert "batch_size=1" in refused(["fit", "--config", "gaussian", "--data.batch_size", "1"], capsys)


def test_a_developer_can_ask_for_the_traceback(here, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEBUG", "true")
    with pytest.raises(Exception, match="batch_size=1") as raised:
        main(["fit", "--config", "gaussian", "--data.batch_size", "1"])
    assert raised.value.__cause__ is not None
    with pytest.raises(ArgumentError, match="max_epochs"):
        main(["fit", "--config", "gaussian", "--trainer.max_epochs", "many"])


def test_no_configuration_at_all_asks_for_a_model(here, capsys):
    assert "fit.model" in refused(["fit"], capsys)


def test_a_training_without_data_is_refused(here, capsys):
    options = yaml.safe_load(find_file("gaussian", "recipe").path.read_text())
    del options["data"]
    Path("no_data.yaml").write_text(yaml.safe_dump(options))
    assert "fit.data" in refused(["fit", "--config", "no_data.yaml"], capsys)


def test_an_output_folder_that_cannot_be_written_is_refused_before_training(here, capsys):
    Path("file").write_text("not a folder")
    message = refused(["fit", "--config", "gaussian", "--trainer.default_root_dir", "file/runs"], capsys)
    assert "cannot write to the output folder file/runs" in message
    assert [path.name for path in here.iterdir()] == ["file"]


def test_help_shows_examples_then_every_option(here, capsys):
    assert main(["test", "--help"]) == 0
    output = capsys.readouterr().out
    assert output.index("lightning-mi test --config gaussian --ckpt_path last") < output.index("--trainer.max_epochs")


# Checkpoints of an earlier process.


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # true: the run goes on in a new version's folder
def test_fit_goes_on_from_the_last_checkpoint_and_says_which(here, capsys):
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


def test_fit_ends_with_the_estimate_its_error_and_the_truth(here, capsys):
    assert short("fit") == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("val/")]
    logged = Watch.metrics
    estimate, error, truth = (logged[f"val/{name}"] for name in ("mi", "mi_standard_error", "true_mi"))
    assert line == f"val/mi {estimate:.2f} +- {error:.2f} nats (truth: {truth:.2f})"
    assert f"{truth:.2f}" == "2.77"


def test_fit_ends_with_a_line_for_each_data_loader(here, capsys):
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


def test_without_validation_fit_ends_without_an_estimate(here, capsys):
    assert short("fit", "--trainer.limit_val_batches=0") == 0
    assert "val/mi" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluation_of_untrained_weights_names_the_checkpoints(command, here, capsys):
    assert short(command) == 0
    assert "untrained" not in capsys.readouterr().err  # nothing was trained: there is no mistake to make
    assert short("fit") == 0
    assert "untrained" not in capsys.readouterr().err
    [file] = checkpoints(here)
    assert short(command) == 0
    said = capsys.readouterr().err
    assert "untrained" in said
    assert f"are in {file.parent.relative_to(here)}: `--ckpt_path best`" in said
    assert short(command, "--ckpt_path=last") == 0
    assert "untrained" not in capsys.readouterr().err


def test_best_is_the_checkpoint_with_the_best_metric(here, capsys):
    keep = "lightning.pytorch.callbacks.ModelCheckpoint"
    options = [f"--trainer.callbacks+={keep}", "--trainer.callbacks.monitor=val/mi", "--trainer.callbacks.mode=max"]
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


def test_best_is_the_held_out_choice_and_last_the_newest(here, capsys):
    """Onehot for three epochs, with a margin that no later epoch exceeds."""
    options = ["--trainer.callbacks+=lightning_mi.callbacks.HeldOutCheckpoint", "--trainer.callbacks.z=1000"]
    options += ["--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"]
    assert short("fit", *options, "--trainer.max_epochs=3") == 0
    names = {"best": "held_out-epoch=0-step=6.ckpt", "last": "epoch=2-step=18.ckpt"}
    assert {path.name for path in checkpoints(here)} == set(names.values())
    for wanted, name in names.items():
        capsys.readouterr()
        assert short("test", f"--ckpt_path={wanted}") == 0
        assert f"/{name} (step " in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["best", "last"])
@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_checkpoint_that_does_not_exist_is_an_error(command, wanted, here, capsys):
    message = refused([command, "--config", "onehot", *QUIET, f"--ckpt_path={wanted}"], capsys)
    assert "lightning_mi_runs/onehot/lightning_logs" in message


def test_the_command_line_decides_hyper_parameters_and_the_checkpoint_weights(here, capsys):
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


def test_a_checkpoint_that_holds_code_is_refused(here, capsys):
    torch.save({"state_dict": {}, "payload": Path}, "hostile.ckpt")
    message = refused(["test", "--config", "onehot", *QUIET, "--ckpt_path=hostile.ckpt"], capsys)
    assert "objects other than plain data" in message


def test_every_command_finds_its_last_checkpoint(here):
    Path("my_data.py").write_text(
        "from lightning_mi.data import OneHotDataModule\n\n\n"
        "class Data(OneHotDataModule):\n"
        "    def predict_dataloader(self):\n"
        "        return self.test_dataloader()\n"
    )
    assert short("fit") == 0
    [trained] = checkpoints(here)
    for command in ("validate", "test", "predict"):
        assert short(command, "--data=my_data.Data", "--ckpt_path=last") == 0, command
        assert torch.equal(Watch.module.critic.first.weight, critic_in(trained)), command


def test_predict_reads_a_checkpoint_of_the_recipe(here, capsys):
    assert short("fit") == 0
    assert short("predict", "--ckpt_path=last") == 0
    assert "(step 6)" in capsys.readouterr().err


def test_data_without_a_predict_dataloader_are_one_message(here, capsys, monkeypatch):
    monkeypatch.delattr("lightning_mi.data.base.AbstractStreamDataModule.predict_dataloader")
    assert short("predict") == 2
    assert "error: `predict_dataloader` must be implemented" in capsys.readouterr().err


def critic_in(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state_dict"]["mi_loss.critic.first.weight"]


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_before_zero_grad", "state_dict"])  # the last in a save
def test_ctrl_c_saves_and_says_the_command_that_goes_on(hook, here, capsys):
    options = [f"--trainer.callbacks+={__name__}.Interrupt", f"--trainer.callbacks.hook={hook}"]
    options += ["--trainer.callbacks.call=1", "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"]
    options += ["--trainer.callbacks.every_n_train_steps=2"]
    assert short("fit", *options) == 130
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "Go on from there: lightning-mi fit --config onehot " in error
    assert error.rstrip().endswith(f"{options[-1]} --ckpt_path last")
    assert "last-terminated.ckpt" in {path.name for path in checkpoints(here)}


def test_ctrl_c_before_the_first_batch_ends_without_a_checkpoint(here, capsys):
    options = [f"--trainer.callbacks+={__name__}.Interrupt", "--trainer.callbacks.hook=on_fit_start"]
    assert short("fit", *options, "--trainer.callbacks.call=1") == 130
    error = capsys.readouterr().err
    assert "no checkpoint was saved" in error
    assert "Traceback" not in error
    assert checkpoints(here) == []
