"""Recipes and configuration of `lightning-mi fit`, and its error messages."""

import copy
import re
from argparse import ArgumentError
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_mi.cli.main import main
from lightning_mi.utilities.recipe_registry import find_file, list_files
from tests.helpers.command_line import QUIET, WATCH, Watch, checkpoints, error_of, short


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
def fake_torchvision(monkeypatch, here):
    """Replaces the datasets that would be downloaded or are in a folder."""
    for i in range(240):
        folder = here / "data" / "cifar10_folder" / ("train" if i < 120 else "test") / f"class{i % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 50).convert("RGB").save(folder / f"{i}.png")
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
    assert main(["fit", "--config", name, *QUIET, WATCH, "--data.steps=2"]) == 0
    assert Watch.module.optimizers(use_pl_optimizer=False).param_groups[0]["lr"] == 0.25


# Errors: one message, exit status 2, no file written.


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


@pytest.mark.filterwarnings(r"ignore:\s*Hit failing import")  # of classes in pages that other tests have run
def test_help_shows_examples_before_options(here, capsys):
    assert main(["test", "--help"]) == 0
    output = capsys.readouterr().out
    assert output.index("lightning-mi test --config gaussian --ckpt_path last") < output.index("--trainer.max_epochs")
