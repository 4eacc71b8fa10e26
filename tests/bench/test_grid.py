"""Which trainings a benchmark consists of, and their configurations."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_mi import bounds
from lightning_mi.bench import grid as grid_module
from lightning_mi.bench.grid import Cell, load_grid
from lightning_mi.bench.train import instantiate
from lightning_mi.encoders import NormalScores
from lightning_mi.exceptions import GridError, UnknownRecipeError
from lightning_mi.utilities.recipe_registry import find_file

OFFSET_UNIT = "model.init_args.critic.init_args.offset_unit"


@pytest.fixture
def write_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace a benchmark's file by a changed copy."""

    def write(name: str, **changes: Any) -> Path:
        document = yaml.safe_load(find_file(name, "benchmark").path.read_text())
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document | changes))
        monkeypatch.setattr(grid_module, "find_grid_file", lambda name: path)
        return path

    return write


def model_of(cell: Cell) -> dict[str, Any]:
    model: dict[str, Any] = cell.config["model"]["init_args"]
    return model


def test_expansion_order_is_seed_study_loss_variant_target_weight() -> None:
    names = [cell.name for cell in load_grid("onehot", "quick", losses=["DV", "NWJ"], seeds=[3, 4]).cells]
    one_seed = [f"{s}-{loss}-{v}" for s in ("drifting", "explosion") for loss in ("DV", "NWJ")
                for v in ("original", "regularized")]  # fmt: skip
    one_seed += [f"targets-DV-regularized{target}" for target in ("-target-5", "-target-2", "", "-target2", "-target5")]
    assert names == [f"{kind}-seed{seed}" for seed in (3, 4) for kind in one_seed]
    sweep = load_grid("supervised", "paper", data="cifar10", losses=["DV"], seeds=[0]).cells
    assert [cell.name for cell in sweep] == [
        "labels-DV-original-seed0",
        *(f"labels-DV-regularized-weight{weight}-seed0" for weight in ("0.1", "0.01", "0.001")),
    ]


def test_cells_have_bound_and_regularizer_of_their_variant() -> None:
    cells = {(cell.loss, cell.variant): model_of(cell) for cell in load_grid("gaussian", "paper").cells}
    assert cells["NWJ", "original"]["bound"] == {"class_path": "lightning_mi.bounds.NWJ", "init_args": {"cap": None}}
    assert cells["NWJ", "original"]["regularizer"] is None
    assert cells["NWJ", "regularized"]["bound"]["init_args"] == {}
    assert cells["NWJ", "regularized"]["regularizer"]["init_args"] == {"weight": 1.0, "scale": "log"}
    assert cells["JS", "published"]["bound"]["class_path"] == "lightning_mi.bounds.ReleasedJS"
    assert cells["JS", "published"]["regularizer"]["init_args"]["weight"] == 1.0
    [printed] = [
        c for c in load_grid("onehot", "paper", losses=["NWJ"], seeds=[0]).cells if c.kind.endswith("g-NWJ-published")
    ]
    assert model_of(printed)["bound"] == {"class_path": "lightning_mi.bounds.NWJ", "init_args": {"cap": None}}
    assert model_of(printed)["regularizer"]["init_args"] == {"weight": 1.0, "scale": "linear"}
    [released] = [
        c
        for c in load_grid("contrastive", "paper", losses=["JS"], seeds=[0]).cells
        if "published-target1-weight0.1-" in c.name and c.study == "offset"
    ]
    assert model_of(released)["regularizer"]["init_args"] == {"weight": 0.1, "scale": "log", "target": 1.0}


def test_study_settings_reach_their_cells() -> None:
    cells = load_grid("onehot", "quick").cells
    targets = [cell for cell in cells if cell.study == "targets"]
    assert [cell.target for cell in targets] == [-5.0, -2.0, 0.0, 2.0, 5.0]
    assert all(model_of(cell)["regularizer"]["init_args"]["weight"] == 0.1 for cell in targets)
    assert {cell.config["data"]["init_args"]["batch_size"] for cell in cells if cell.study == "explosion"} == {32}


def test_paper_preset_keeps_the_recipe_and_quick_reduces_it() -> None:
    recipe = yaml.safe_load(find_file("gaussian", "recipe").path.read_text())
    paper = load_grid("gaussian", "paper", losses=["MINE"])
    config = paper.cells[1].config
    assert paper.note == ""
    assert {key: config[key] for key in ("trainer", "data")} == {key: recipe[key] for key in ("trainer", "data")}
    assert config["model"]["init_args"]["critic"] == recipe["model"]["init_args"]["critic"]
    quick = load_grid("gaussian", "quick").cells[0].config
    assert quick["data"]["init_args"]["steps_per_mi"] == 500
    assert quick["data"]["init_args"]["batch_size"] == 32
    assert quick["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1.5e-3
    assert quick["model"]["init_args"]["critic"]["init_args"]["hidden"] == [128, 128]


def test_full_preset_only_lifts_the_limit_of_training_images() -> None:
    quick, full = (load_grid("contrastive", preset, data="fashion_mnist", seeds=[0]) for preset in ("quick", "full"))
    offset = [cell for cell in quick.cells if cell.study == "offset"]
    for cell in offset:
        assert cell.config["data"]["init_args"]["limit_train"] == 20_000
        cell.config["data"]["init_args"]["limit_train"] = None
    assert [cell.config for cell in full.cells] == [cell.config for cell in offset]


def test_digest_depends_on_every_setting_and_the_seed() -> None:
    quick, paper = (load_grid("gaussian", preset, losses=["DV"]).cells[0] for preset in ("quick", "paper"))
    other_seed, repeated = (load_grid("gaussian", "quick", seeds=[s], losses=["DV"]).cells[0] for s in (1, 0))
    assert other_seed.config["seed_everything"] == other_seed.config["data"]["init_args"]["seed"] == 1
    assert len({quick.digest, paper.digest, other_seed.digest}) == 3
    assert quick.digest == repeated.digest


@pytest.mark.parametrize("name", ["gaussian", "onehot", "supervised", "contrastive"])
def test_bounds_of_a_benchmark_exist(name: str) -> None:
    cells = load_grid(name, "paper", seeds=[0]).cells
    paths = {model_of(cell)["bound"]["class_path"] for cell in cells}
    assert {path.rpartition(".")[2] for path in paths} <= set(bounds.__all__)
    assert len({cell.name for cell in cells}) == len(cells)


def test_losses_have_settings_for_single_data_sets(write_benchmark: Any) -> None:
    rows = [
        {"loss": "A", "bound": "DV", "overrides": {OFFSET_UNIT: 2.0}},
        {"loss": "B", "bound": "DV", "overrides": {OFFSET_UNIT: 2.0}, "data_overrides": {"digits": {OFFSET_UNIT: 3.0}}},
    ]
    write_benchmark("contrastive", losses=rows, studies={"offset": {}})

    def units(data: str) -> list[float]:
        cells = load_grid("contrastive", "quick", data=data, seeds=[0]).cells[::2]
        return [model_of(cell)["critic"]["init_args"]["offset_unit"] for cell in cells]

    assert units("digits") == [2.0, 3.0]
    assert units("fashion_mnist") == [2.0, 2.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gaussian", "papers"), r"'papers': gaussian.yaml has quick, paper"),
        (("gaussian", "quick", {"losses": ["MIN"]}), r"losses MIN:.*DV, MINE"),
        (("gaussian", "quick", {"data": "digits"}), r"data 'digits': .*no choice of data"),
        (("gaussian", "quick", {"devices": 3}), "3 devices for batches of 32"),
    ],
)
def test_unknown_choices_raise_with_the_known_ones(arguments: Any, message: str) -> None:
    *names, options = (*arguments, {})[:3]
    with pytest.raises(GridError, match=message):
        load_grid(*names, **options)
    with pytest.raises(UnknownRecipeError, match="gaussian, minimize, onehot"):
        load_grid("gausian", "quick")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"looses": []}, "unknown key looses"),
        ({"studies": {"staircase": {"target": [1.0]}}}, "unknown key target; known: .*targets"),
        ({"losses": [{"loss": "DV"}]}, "missing 1 required positional argument: 'bound'"),
        ({"losses": [{"loss": "DV", "bound": "DV", "data_overrides": {"digit": {}}}]}, "unknown key digit"),
        (
            {"presets": {"quick": {"seeds": [0], "overrides": {"data.init_arg.mi": 1}, "weight": 1.0}}},
            r"'data.init_arg.mi'.*'init_arg'",
        ),
    ],
)
def test_invalid_keys_in_the_file_raise(write_benchmark: Any, changes: dict[str, Any], message: str) -> None:
    write_benchmark("gaussian", **changes)
    with pytest.raises(GridError, match=message):
        load_grid("gaussian", "quick")


def test_instantiation_leaves_the_configuration_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["pytest"])  # LightningCLI warns about arguments of the command line
    cell = next(cell for cell in load_grid("gaussian", "cubic").cells if cell.study == "cubic-normal-scores")
    before = copy.deepcopy(cell.config)
    cli = instantiate(cell.config, tmp_path, "x")
    assert [type(encoder) for encoder in cli.model.encoders] == [NormalScores, NormalScores]
    assert cell.config == before
