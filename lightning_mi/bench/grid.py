"""The grid of a benchmark: all its trainings, each with its complete configuration."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml

from lightning_mi.bench.benchmark_file import (
    Benchmark,
    LossRow,
    Preset,
    PublishedForm,
    Study,
    Weight,
    read_benchmark,
)
from lightning_mi.bench.cells import AbstractCell, Grid
from lightning_mi.bench.grid_file import find_grid_file
from lightning_mi.exceptions import GridError
from lightning_mi.utilities.recipe_registry import find_file

VARIANTS = ("original", "regularized", "published")


@final
@dataclass(frozen=True)
class Cell(AbstractCell):
    """One training of a grid.

    Attributes:
        seed: Seed of the weights and the data.
        config: The whole training, in the form of ``lightning-mi fit --config``.
        study: Name of its study.
        loss: Name of the loss.
        paper: Name of the loss in the paper; None for a loss that the paper does not have.
        variant: ``original``, ``regularized`` or ``published`` (regularized as in the authors' released code).
        target: The regularizer's target, nats.
        weight: The regularizer's weight, lambda, if the grid sweeps it; None if each loss has one weight.
    """

    study: str
    loss: str
    paper: str | None
    variant: str
    target: float
    weight: float | None

    @property
    def kind(self) -> str:
        """The cell's name without its seed."""
        target = "" if self.target == 0 else f"-target{self.target:g}"
        weight = "" if self.weight is None else f"-weight{self.weight:g}"
        return f"{self.study}-{self.loss}-{self.variant}{target}{weight}"

    @property
    def has_plug_in(self) -> bool:
        """Whether a regularizer or a self-normalized bound holds the log-normalizer at its target."""
        if self.variant != "original":
            return True
        from lightning_mi import bounds  # imports torch: seconds

        name = self.config["model"]["init_args"]["bound"]["class_path"].rpartition(".")[2]
        return bool(getattr(bounds, name).self_normalized)


def load_grid(
    name: str,
    preset: str,
    *,
    seeds: list[int] | None = None,
    losses: list[str] | None = None,
    data: str | None = None,
    devices: int = 1,
) -> Grid[Cell]:
    """Expand a benchmark into its trainings.

    Args:
        name: A benchmark in ``recipes/bench``, or a YAML file of the same form.
        preset: One of the file's presets.
        seeds: Seeds instead of the preset's.
        losses: Losses instead of the preset's.
        data: One of the data sets that the file offers; by default its first.
        devices: Devices of each training, which share every batch.

    Raises:
        GridError: If a preset, a loss, a data set or a key is unknown, or a batch cannot be split into equal shards.
        UnknownRecipeError: If there is no such benchmark.

    Example:
        >>> [cell.name for cell in load_grid("gaussian", "quick", losses=["JS"]).cells]
        ['staircase-JS-original-seed0', 'staircase-JS-regularized-seed0']
    """
    path = find_grid_file(name)
    benchmark = read_benchmark(path)
    chosen = benchmark.preset(preset)
    data = benchmark.data(data)
    rows = benchmark.select_losses(losses or chosen.losses)
    recipe = yaml.safe_load(_recipe_file(benchmark.recipe.format(data=data), path).read_text())
    cells = [
        training.cell(_configuration(recipe, chosen, training, data, devices))
        for seed in (chosen.seeds if seeds is None else seeds)
        for training in _expand(benchmark, chosen, rows, seed)
    ]
    return Grid(path.stem, preset, chosen.note, benchmark.report, cells, data)


def _recipe_file(name: str, benchmark: Path) -> Path:
    """A recipe by its name, or by its path relative to the benchmark's file."""
    beside = benchmark.parent / name
    return beside if beside.suffix and beside.is_file() else find_file(name, "recipe").path


@dataclass(frozen=True)
class _Training:
    """A point of the grid, before its configuration is made."""

    study_name: str
    study: Study
    row: LossRow
    variant: str
    seed: int
    target: float
    weight: float
    sweeps_weight: bool

    def cell(self, config: dict[str, Any]) -> Cell:
        weight = self.weight if self.sweeps_weight else None
        return Cell(
            seed=self.seed,
            config=config,
            study=self.study_name,
            loss=self.row.loss,
            paper=self.row.paper,
            variant=self.variant,
            target=self.target,
            weight=weight,
        )


def _expand(benchmark: Benchmark, preset: Preset, rows: list[LossRow], seed: int) -> Iterator[_Training]:
    """All trainings with one seed: studies x losses x variants x targets x weights."""
    for study_name, study in benchmark.studies.items():
        if preset.studies is not None and study_name not in preset.studies:
            continue
        for row in rows:
            if study.losses is not None and row.loss not in study.losses:
                continue
            for variant in study.variants or preset.variants or VARIANTS:
                if variant == "published" and row.published is None:
                    continue
                weights = _weights(variant, preset, study, row)
                for target in _targets(variant, study, row):
                    for weight in weights:
                        yield _Training(study_name, study, row, variant, seed, target, weight, len(weights) > 1)


def _weights(variant: str, preset: Preset, study: Study, row: LossRow) -> list[float]:
    """Lambda, or the values of a sweep: of the published form, the study, the loss or the preset, in this order."""
    if variant == "original":
        return [0.0]
    form = row.published if variant == "published" else None
    sources: list[Weight | None] = [None if form is None else form.weight, study.weight, row.weight, preset.weight]
    weight = next(source for source in sources if source is not None)
    return weight if isinstance(weight, list) else [weight]


def _targets(variant: str, study: Study, row: LossRow) -> list[float]:
    if variant == "original":
        return [0.0]
    if variant == "published" and row.published is not None and row.published.target is not None:
        return [row.published.target]
    return study.targets


def _configuration(
    recipe: dict[str, Any], preset: Preset, training: _Training, data: str | None, devices: int
) -> dict[str, Any]:
    row, config = training.row, copy.deepcopy(recipe)
    config["seed_everything"] = training.seed
    config["data"]["init_args"]["seed"] = training.seed
    # The study comes last: if it replaces a whole part, it also replaces the loss's settings of that part.
    for overrides in (
        preset.overrides,
        row.overrides,
        row.data_overrides.get(data or "", {}),
        training.study.overrides,
    ):
        for key, value in overrides.items():
            _assign(config, key, copy.deepcopy(value))
    form = PublishedForm(bound_args=row.original if training.variant == "original" else row.regularized)
    if training.variant == "published" and row.published is not None:
        form = row.published
    model = config["model"]["init_args"]
    model["bound"] = {
        "class_path": f"lightning_mi.bounds.{form.bound or row.bound}",
        "init_args": copy.deepcopy(form.bound_args),
    }
    model["regularizer"] = None
    if training.variant != "original":
        arguments: dict[str, Any] = {"weight": training.weight, "scale": form.scale}
        if training.target != 0:
            arguments["target"] = training.target
        model["regularizer"] = {"class_path": "lightning_mi.regularizers.Squared", "init_args": arguments}
    if devices > 1:
        shard_batches(config, devices)
    return config


def shard_batches(config: dict[str, Any], devices: int) -> None:
    """Train on several devices with the same global batch; ``batch_size`` of the data modules is per rank."""
    data = config["data"]["init_args"]
    if data["batch_size"] % devices:
        raise GridError(
            f"Got {devices} devices for batches of {data['batch_size']}: each device needs an equal shard. Choose a "
            "divisor of the batch size."
        )
    data["batch_size"] //= devices
    config["trainer"]["devices"] = devices


def _assign(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if parent not in config:
            raise GridError(f"Got the override {key!r}: the recipe has no key {parent!r}. Use a key of the recipe.")
        config = config[parent]
    config[last] = value
