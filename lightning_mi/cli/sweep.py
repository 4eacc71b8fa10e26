"""`lightning-mi bench RECIPE --sweep KEY=VALUES`: each point of the grid is parsed like a command line of `fit`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.grid import shard_batches
from lightning_mi.bench.sweep.axes import Axis, labels, make_axis, parse_axis, points, value_label
from lightning_mi.bench.sweep.cell import SweepCell
from lightning_mi.cli.parser import TrainingParser, add_config_option, config_file, resolve
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.linked_values import short_key
from lightning_mi.utilities.suggestions import did_you_mean

_FILE_KEYS = ("recipe", "sweep", "seeds")
_OPTIONS = {"seed_everything": "--seeds", "data.seed": "--seeds", "trainer.devices": "--gpus-per-run"}


def load_sweep(
    recipe: str, sweeps: Sequence[str] = (), *, seeds: Sequence[int] | None = None, devices: int = 1
) -> Grid[SweepCell]:
    """Expand a sweep into its trainings.

    Args:
        recipe: Name of a recipe, or a YAML file: a configuration of `lightning-mi fit`, or a grid with the keys
            `recipe`, `sweep` (values by key) and `seeds`.
        sweeps: The axes, each as `KEY=VALUE,VALUE`. They replace those of the file with the same key.
        seeds: Seeds of the weights and, if the data module has one, of the data; by default those of the file, or 0.
        devices: Devices of each training, which share every batch.

    Raises:
        ConfigurationError: If there is no such recipe.
        GridError: If an axis or the file is invalid.
        SystemExit: If a key or a value is invalid: the parser has printed the reason.

    Example:
        >>> grid = load_sweep("gaussian", ["model.regularizer.weight=0.1,1", "data.mi=2,4"], seeds=[0])
        >>> [cell.name for cell in grid.cells][:2]
        ['weight=0.1,mi=2-seed0', 'weight=0.1,mi=4-seed0']
    """
    file = Path(config_file(recipe))
    axes = {axis.key: axis for axis in map(parse_axis, sweeps)}
    if len(axes) < len(sweeps):
        list(points([parse_axis(text) for text in sweeps]))  # raises
    document = _read(file)
    name = recipe if Path(recipe).suffix == "" else file.stem
    if "sweep" in document:
        axes = {**_file_axes(document, file), **axes}
        seeds = seeds or document.get("seeds")
        name = str(document["recipe"])
        file = _recipe_of(name, file)
    chosen = list(axes.values())
    for key in map(short_key, axes):
        if key in _OPTIONS:
            raise GridError(f"Got --sweep {key}: a sweep sets it by {_OPTIONS[key]}. Use that option.")
    columns = labels(chosen)
    parser = _configuration_parser()
    configs = [(point, _configuration(parser, file, point)) for point in points(chosen)]
    cells = [
        SweepCell(
            seed=seed,
            config=_seeded(config, seed, devices),
            recipe=name,
            settings={label: value_label(point[key]) for key, label in columns.items()},
        )
        for seed in dict.fromkeys(seeds or [0])
        for point, config in configs
    ]
    _check_names(cells)
    fixed = ", ".join(f"{axis.key}={axis.values[0]}" for axis in chosen if len(axis.values) == 1)
    return Grid(name, "sweep", fixed, "sweep", cells, reference=f"the recipe {name}")


def output_name(recipe: str, sweeps: Sequence[str]) -> str:
    """The name of a sweep's default output folder.

    Example:
        >>> output_name("supervised/digits", ["model.bound=DV,NWJ", "trainer.max_epochs=2"])
        'sweep-supervised-digits-bound'
    """
    name = Path(recipe).stem if Path(recipe).suffix else recipe.replace("/", "-")
    return "-".join(["sweep", name, *labels([parse_axis(text) for text in sweeps]).values()])


def _read(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise GridError(f"Got {file}, which is not valid YAML: {' '.join(str(error).split())}.") from error
    return document if isinstance(document, dict) else {}


def _file_axes(document: dict[str, Any], file: Path) -> dict[str, Axis]:
    for key in document:
        if key not in _FILE_KEYS:
            raise GridError(f"{file} has the unknown key {key}.{did_you_mean(str(key), _FILE_KEYS)}")
    if "recipe" not in document:
        raise GridError(
            f"{file} has the key sweep, but no key recipe: it names what is trained. Add a line such as "
            "`recipe: gaussian`."
        )
    sweep = document["sweep"]
    if not isinstance(sweep, dict) or not sweep:
        raise GridError(f"{file}: sweep is {sweep!r}. Write values by key, such as `data.mi: [2, 4]`.")
    if not all(isinstance(seed, int) for seed in document.get("seeds", [])):
        raise GridError(f"{file}: seeds is {document['seeds']!r}. Write a list of whole numbers.")
    axes = {}
    for key, values in sweep.items():
        texts = [_text(value) for value in (values if isinstance(values, list) else [values])]
        axes[key] = make_axis(key, texts)
    return axes


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _recipe_of(name: str, file: Path) -> Path:
    """The recipe of a grid's file: a path relative to the file, or a name."""
    beside = file.parent / name
    return beside if beside.is_file() else Path(config_file(name))


def _configuration_parser() -> TrainingParser:
    """A parser of what `lightning-mi fit` accepts, and of the files that it saves."""
    parser = TrainingParser(prog="lightning-mi bench")
    add_config_option(parser)
    parser.add_argument("--seed_everything", type=bool | int, default=True)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    parser.add_method_arguments(Trainer, "fit", skip={"model", "train_dataloaders", "val_dataloaders", "datamodule"})
    return parser


def _configuration(parser: TrainingParser, file: Path, point: dict[str, str]) -> dict[str, Any]:
    """The whole configuration of a point, with the defaults of all parameters."""
    overrides = [f"--{key}={value}" for key, value in point.items()]
    parsed = parser.parse_args(resolve([f"--config={file}", *overrides]))
    config: dict[str, Any] = json.loads(parser.dump(parsed, format="json", skip_none=False))
    return {key: config[key] for key in ("seed_everything", "trainer", "model", "data")}


def _seeded(config: dict[str, Any], seed: int, devices: int) -> dict[str, Any]:
    seeded: dict[str, Any] = json.loads(json.dumps(config)) | {"seed_everything": seed}
    arguments = seeded["data"].get("init_args", {})
    if "seed" in arguments:
        arguments["seed"] = seed
    seeded["trainer"]["devices"] = 1
    if devices > 1:
        shard_batches(seeded, devices)
    return seeded


def _check_names(cells: Sequence[SweepCell]) -> None:
    for first, second in _same_names(cells):
        raise GridError(
            f"Got {first.settings} and {second.settings}: both runs would be called {first.name}. Write values that "
            "differ in letters or digits."
        )


def _same_names(cells: Sequence[SweepCell]) -> Iterator[tuple[SweepCell, SweepCell]]:
    by_name: dict[str, SweepCell] = {}
    for cell in cells:
        if cell.name in by_name:
            yield by_name[cell.name], cell
        by_name[cell.name] = cell
