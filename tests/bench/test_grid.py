import copy
from typing import Any

import pytest
import yaml

from lightning_mi import bounds
from lightning_mi.bench import grid as grid_module
from lightning_mi.bench.grid import Cell, load_grid
from lightning_mi.exceptions import GridError, UnknownRecipeError
from lightning_mi.utilities.recipe_registry import find_file


def test_every_loss_has_an_original_and_a_regularized_training() -> None:
    cells = load_grid("gaussian", "quick").cells
    assert sorted((cell.loss, cell.variant) for cell in cells) == sorted(
        (loss, variant)
        for loss in ("DV", "MINE", "SMILE", "InfoNCE", "NWJ", "TUBA", "JS")
        for variant in ("original", "regularized")
    )


def test_original_trainings_have_no_regularizer_and_literal_exponentials() -> None:
    cells = {
        (cell.loss, cell.variant): cell.config["model"]["init_args"] for cell in load_grid("gaussian", "paper").cells
    }
    assert cells["NWJ", "original"]["bound"] == {"class_path": "lightning_mi.bounds.NWJ", "init_args": {"cap": None}}
    assert cells["NWJ", "original"]["regularizer"] is None
    assert cells["NWJ", "regularized"]["bound"]["init_args"] == {}
    assert cells["NWJ", "regularized"]["regularizer"]["init_args"] == {"weight": 1.0, "scale": "log"}
    assert cells["JS", "published"]["bound"]["class_path"] == "lightning_mi.bounds.ReleasedJS"


def test_the_paper_preset_keeps_the_recipe_and_quick_changes_what_its_note_says() -> None:
    recipe = yaml.safe_load(find_file("gaussian", "recipe").path.read_text())
    paper = load_grid("gaussian", "paper", losses=["MINE"])
    config = paper.cells[1].config
    assert paper.note == ""
    assert {key: config[key] for key in ("trainer", "data", "model")} == {
        key: recipe[key] for key in ("trainer", "data", "model")
    } | {"model": config["model"]}
    assert config["model"]["init_args"]["critic"] == recipe["model"]["init_args"]["critic"]
    quick = load_grid("gaussian", "quick").cells[0].config
    assert quick["data"]["init_args"]["steps_per_mi"] == 500
    assert quick["data"]["init_args"]["batch_size"] == 32
    assert quick["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1.5e-3
    assert quick["model"]["init_args"]["critic"]["init_args"]["hidden"] == [128, 128]


def test_targets_and_batch_sizes_of_the_onehot_studies() -> None:
    cells = load_grid("onehot", "quick").cells
    targets = [cell for cell in cells if cell.study == "targets"]
    assert [cell.target for cell in targets] == [-5.0, -2.0, 0.0, 2.0, 5.0]
    assert all(cell.config["model"]["init_args"]["regularizer"]["init_args"]["weight"] == 0.1 for cell in targets)
    assert {cell.config["data"]["init_args"]["batch_size"] for cell in cells if cell.study == "explosion"} == {32}
    assert len({cell.name for cell in cells}) == len(cells)


def test_seeds_and_losses_can_be_chosen() -> None:
    cells = load_grid("gaussian", "quick", seeds=[3, 4], losses=["JS"]).cells
    assert [(cell.loss, cell.seed) for cell in cells] == [("JS", 3), ("JS", 3), ("JS", 4), ("JS", 4)]
    assert cells[0].config["seed_everything"] == cells[0].config["data"]["init_args"]["seed"] == 3


def test_a_changed_setting_changes_the_digest_and_the_seed_does_too() -> None:
    quick, paper = (load_grid("gaussian", preset, losses=["DV"]).cells[0] for preset in ("quick", "paper"))
    other_seed = load_grid("gaussian", "quick", seeds=[1], losses=["DV"]).cells[0]
    again = load_grid("gaussian", "quick", losses=["DV"]).cells[0]
    assert len({quick.digest, paper.digest, other_seed.digest}) == 3
    assert quick.digest == again.digest


@pytest.mark.parametrize("name", ["gaussian", "onehot"])
def test_every_bound_that_a_benchmark_names_exists(name: str) -> None:
    for cell in load_grid(name, "paper").cells:
        class_path = cell.config["model"]["init_args"]["bound"]["class_path"]
        assert class_path.rpartition(".")[2] in bounds.__all__


def test_unknown_names_are_errors_that_list_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownRecipeError, match="gaussian, onehot"):
        load_grid("gausian", "quick")
    with pytest.raises(GridError, match=r"'papers'.*quick, paper"):
        load_grid("gaussian", "papers")
    with pytest.raises(GridError, match=r"losses MIN:.*DV, MINE"):
        load_grid("gaussian", "quick", losses=["MIN"])
    document = yaml.safe_load(find_file("gaussian", "benchmark").path.read_text())
    document["looses"] = document["losses"]
    monkeypatch.setattr(grid_module.yaml, "safe_load", lambda text: document)
    with pytest.raises(GridError, match="unknown key looses"):
        load_grid("gaussian", "quick")


def test_an_override_of_a_key_that_the_recipe_lacks_is_an_error() -> None:
    with pytest.raises(GridError, match=r"'data.init_arg.seed'.*'init_arg'"):
        grid_module._assign({"data": {"init_args": {}}}, "data.init_arg.seed", 0)


OFFSET_UNIT = "model.init_args.critic.init_args.offset_unit"


def offset_unit(cell: Cell) -> float | None:
    critic: dict[str, Any] = cell.config["model"]["init_args"]["critic"]
    unit: float | None = critic["init_args"].get("offset_unit")
    return unit


def test_a_loss_has_settings_of_its_own_for_a_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    document = yaml.safe_load(find_file("contrastive", "benchmark").path.read_text())
    rows = [
        {"loss": "A", "bound": "DV", "overrides": {OFFSET_UNIT: 2.0}},
        {"loss": "B", "bound": "DV", "overrides": {OFFSET_UNIT: 2.0}, "data_overrides": {"digits": {OFFSET_UNIT: 3.0}}},
    ]
    document |= {"losses": rows, "studies": {"offset": {}}}
    recipe = yaml.safe_load(find_file("contrastive/digits", "recipe").path.read_text())

    def units(data: str) -> list[float | None]:
        read = iter([document, copy.deepcopy(recipe)])
        monkeypatch.setattr(grid_module.yaml, "safe_load", lambda text: next(read))
        return [offset_unit(cell) for cell in load_grid("contrastive", "quick", data=data, seeds=[0]).cells[::2]]

    assert units("digits") == [2.0, 3.0]
    assert units("fashion_mnist") == [2.0, 2.0]
    rows[1]["data_overrides"] = {"digit": {OFFSET_UNIT: 3.0}}
    with pytest.raises(GridError, match=r"unknown key digit; known: .*digits"):
        units("digits")


def test_the_full_preset_takes_all_training_images_and_is_otherwise_the_quick_one() -> None:
    quick, full = (load_grid("contrastive", preset, data="fashion_mnist", seeds=[0]) for preset in ("quick", "full"))
    ours = [cell for cell in quick.cells if cell.study == "offset"]
    for cell in ours:
        assert cell.config["data"]["init_args"]["limit_train"] == 20_000
        cell.config["data"]["init_args"]["limit_train"] = None
    assert [cell.config for cell in full.cells] == [cell.config for cell in ours]
    with pytest.raises(GridError, match=r"'full': gaussian.yaml has quick, paper"):
        load_grid("gaussian", "full")
