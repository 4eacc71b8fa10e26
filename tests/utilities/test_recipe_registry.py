"""Find recipes and benchmarks."""

import importlib

import pytest
import yaml
from torch import nn

from lightning_mi.exceptions import UnknownRecipeError
from lightning_mi.utilities import recipe_registry

CONTRASTIVE = sorted((recipe_registry.recipes_folder() / "contrastive").glob("*.yaml"))


def test_installed_folder_precedes_the_repository(tmp_path, monkeypatch):
    package = tmp_path / "lightning_mi"
    (package / "recipes").mkdir(parents=True)
    (tmp_path / "recipes").mkdir()
    monkeypatch.setattr(recipe_registry, "_PACKAGE", package)
    assert recipe_registry.recipes_folder() == package / "recipes"
    (package / "recipes").rmdir()
    assert recipe_registry.recipes_folder() == tmp_path / "recipes"


def test_broken_installation_raises_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_registry, "_PACKAGE", tmp_path / "lightning_mi")
    with pytest.raises(FileNotFoundError, match="pip install --force-reinstall"):
        recipe_registry.recipes_folder()


def test_recipes_and_benchmarks_have_separate_names(tmp_path, monkeypatch):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "supervised.yaml").write_text("a: 1\n")
    monkeypatch.setattr(recipe_registry, "recipes_folder", lambda: tmp_path)
    assert recipe_registry.find_file("supervised", "benchmark").path == tmp_path / "bench" / "supervised.yaml"
    with pytest.raises(UnknownRecipeError, match="Known recipes: none"):
        recipe_registry.find_file("supervised", "recipe")
    (tmp_path / "supervised").mkdir()
    (tmp_path / "supervised" / "digits.yaml").write_text("# Digits\n")
    assert [recipe.name for recipe in recipe_registry.list_files("recipe")] == ["supervised/digits"]
    assert recipe_registry.find_file("supervised/digits", "recipe").purpose == "Digits"
    assert [benchmark.name for benchmark in recipe_registry.list_files("benchmark")] == ["supervised"]


@pytest.mark.parametrize("path", CONTRASTIVE, ids=lambda path: path.stem)
def test_contrastive_recipes_on_several_devices_synchronize_batchnorm(path):
    config = yaml.safe_load(path.read_text())
    encoder = config["model"]["init_args"]["encoder"]
    module, _, name = encoder["class_path"].rpartition(".")
    built = getattr(importlib.import_module(module), name)(**encoder.get("init_args", {}))
    normalizes = any(isinstance(part, nn.BatchNorm2d) for part in built.modules())
    several = config["trainer"]["devices"] != 1
    assert config["trainer"].get("sync_batchnorm", False) is (normalizes and several)
