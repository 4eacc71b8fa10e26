"""Where recipes are found."""

import importlib

import pytest
import yaml
from torch import nn

from lightning_mi.utilities import recipe_registry as recipe_files

CONTRASTIVE = sorted((recipe_files.recipes_folder() / "contrastive").glob("*.yaml"))


def test_the_installed_folder_comes_before_the_repository_s(tmp_path, monkeypatch):
    package = tmp_path / "lightning_mi"
    (package / "recipes").mkdir(parents=True)
    (tmp_path / "recipes").mkdir()
    monkeypatch.setattr(recipe_files, "_PACKAGE", package)
    assert recipe_files.recipes_folder() == package / "recipes"
    (package / "recipes").rmdir()
    assert recipe_files.recipes_folder() == tmp_path / "recipes"


def test_a_broken_installation_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_files, "_PACKAGE", tmp_path / "lightning_mi")
    with pytest.raises(FileNotFoundError, match="pip install --force-reinstall"):
        recipe_files.recipes_folder()


def test_a_benchmark_is_not_a_recipe(tmp_path, monkeypatch):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "grid.yaml").write_text("a: 1\n")
    monkeypatch.setattr(recipe_files, "recipes_folder", lambda: tmp_path)
    assert recipe_files.find_file("grid", "benchmark").path == tmp_path / "bench" / "grid.yaml"
    with pytest.raises(recipe_files.UnknownRecipeError, match="Known recipes: none"):
        recipe_files.find_file("grid", "recipe")


def test_a_recipe_in_a_folder_has_the_folder_in_its_name(tmp_path, monkeypatch):
    (tmp_path / "supervised").mkdir()
    (tmp_path / "supervised" / "digits.yaml").write_text("# Digits\n")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "supervised.yaml").write_text("a: 1\n")
    monkeypatch.setattr(recipe_files, "recipes_folder", lambda: tmp_path)
    assert [recipe.name for recipe in recipe_files.list_files("recipe")] == ["supervised/digits"]
    assert recipe_files.find_file("supervised/digits", "recipe").purpose == "Digits"
    assert [benchmark.name for benchmark in recipe_files.list_files("benchmark")] == ["supervised"]


@pytest.mark.parametrize("path", CONTRASTIVE, ids=lambda path: path.stem)
def test_a_contrastive_recipe_on_several_devices_synchronizes_the_batchnorm_of_its_encoder(path):
    config = yaml.safe_load(path.read_text())
    encoder = config["model"]["init_args"]["encoder"]
    module, _, name = encoder["class_path"].rpartition(".")
    made = getattr(importlib.import_module(module), name)(**encoder.get("init_args", {}))
    normalizes = any(isinstance(part, nn.BatchNorm2d) for part in made.modules())
    several = config["trainer"]["devices"] != 1
    assert config["trainer"].get("sync_batchnorm", False) is (normalizes and several)
