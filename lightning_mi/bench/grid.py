"""A benchmark's grid: which trainings it consists of, read from a YAML file."""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import yaml

from lightning_mi.exceptions import GridError
from lightning_mi.utilities.recipe_registry import find_file

VARIANTS = ("original", "regularized", "published")


_LOSS_KEYS = {"loss", "paper", "bound", "original", "regularized", "weight", "published", "overrides", "data_overrides"}


class Interrupted(Exception):
    """The grid was stopped from outside; this training is not finished.

    Defined beside the cells: a process that receives it from another one need not import torch.
    """


@final
@dataclass(frozen=True)
class Cell:
    """One training of a grid.

    Attributes:
        study: The part of the benchmark it belongs to.
        loss: The loss's name.
        paper: The name under which the paper publishes it; None for a loss that the paper does not have.
        variant: ``original``, ``regularized`` or ``published`` (regularized as the authors' released code has it).
        seed: Of the weights and the data.
        target: The regularizer's target, nats.
        weight: The regularizer's weight, lambda, where the grid tries several; None where each loss has one.
        config: The whole training, in the form that ``lightning-mi fit --config`` takes.
    """

    study: str
    loss: str
    paper: str | None
    variant: str
    seed: int
    target: float
    weight: float | None
    config: dict[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        """What it is under any seed."""
        target = "" if self.target == 0 else f"-target{self.target:g}"
        weight = "" if self.weight is None else f"-weight{self.weight:g}"
        return f"{self.study}-{self.loss}-{self.variant}{target}{weight}"

    @property
    def has_plug_in(self) -> bool:
        """Whether something holds the log-normalizer: a regularizer, or a self-normalized bound."""
        return self.variant != "original" or self.loss in ("NWJ", "TUBA", "JS")

    @property
    def name(self) -> str:
        """Also the name of its folder."""
        return f"{self.kind}-seed{self.seed}"

    @property
    def digest(self) -> str:
        """A fingerprint of the configuration: a finished run counts only for the very same one."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:16]


@final
@dataclass(frozen=True)
class Grid:
    """A benchmark under one preset.

    Attributes:
        name: The benchmark's name.
        preset: The preset's name.
        note: What the preset reduces, in words.
        report: Which tables and figures are made of the results.
        cells: The trainings.
        data: The data set, where the benchmark offers several.
    """

    name: str
    preset: str
    note: str
    report: str
    cells: list[Cell]
    data: str | None = None


def load_grid(
    name: str,
    preset: str,
    *,
    seeds: list[int] | None = None,
    losses: list[str] | None = None,
    data: str | None = None,
    devices: int = 1,
) -> Grid:
    """Read a benchmark's YAML and spell out its trainings.

    Args:
        name: Of a benchmark in ``recipes/bench``.
        preset: One of those that the file defines.
        seeds: Replace the preset's.
        losses: Only these.
        data: One of the data sets that the file offers; its first by default.
        devices: That each training runs on, in parts of the same batches.

    Raises:
        GridError: A preset, a loss, a data set or a key is unknown, or a batch has no as many equal parts.
        UnknownRecipeError: There is no such benchmark.
    """
    path = find_file(name, "benchmark").path
    document = yaml.safe_load(path.read_text())
    _check_keys(document, {"recipe", "datasets", "report", "presets", "studies", "losses"}, path)
    if preset not in document["presets"]:
        raise GridError(f"Got preset {preset!r}: {path.name} has {', '.join(document['presets'])}.")
    chosen = document["presets"][preset]
    _check_keys(chosen, {"note", "seeds", "overrides", "losses", "studies", "variants", "weight"}, path)
    datasets = document.get("datasets", [])
    rows = _choose_losses(document["losses"], losses or chosen.get("losses"), datasets, path)
    data = _choose_data(datasets, data, path)
    recipe = yaml.safe_load(find_file(document["recipe"].format(data=data), "recipe").path.read_text())
    cells = [
        _cell(recipe, chosen, study, settings, row, data, variant, seed, target, weight, sweeps=len(weights) > 1)
        for seed in (chosen["seeds"] if seeds is None else seeds)
        for study, settings in document["studies"].items()
        if study in chosen.get("studies", [study])
        for row in rows
        if row["loss"] in settings.get("losses", [row["loss"]])
        for variant in settings.get("variants", chosen.get("variants", VARIANTS))
        if variant != "published" or "published" in row
        for target in (settings.get("targets", [0.0]) if variant != "original" else [0.0])
        for weights in [_weights(variant, settings, row, chosen)]
        for weight in weights
    ]
    for cell in cells if devices > 1 else []:
        _share_out(cell, devices)
    return Grid(path.stem, preset, chosen.get("note", ""), document["report"], cells, data)


def _choose_data(known: list[str], wanted: str | None, path: Path) -> str | None:
    if wanted is not None and wanted not in known:
        offers = ", ".join(known) if known else "no choice of data"
        raise GridError(f"Got data {wanted!r}: {path.name} has {offers}.")
    return wanted or (known[0] if known else None)


def _weights(variant: str, study: Mapping[str, Any], row: Mapping[str, Any], preset: Mapping[str, Any]) -> list[float]:
    """Lambda, or several to try, of the nearest that says one: the variant, the study, the loss, the preset."""
    if variant == "original":
        return [0.0]
    sources = [row["published"] if variant == "published" else {}, study, row, preset]
    found = next(source["weight"] for source in sources if "weight" in source)
    return found if isinstance(found, list) else [found]


def _choose_losses(
    rows: list[dict[str, Any]], wanted: Iterable[str] | None, datasets: Iterable[str], path: Path
) -> list[dict[str, Any]]:
    for row in rows:
        _check_keys(row, _LOSS_KEYS, path)
        _check_keys(row.get("data_overrides", {}), set(datasets), path)
    known = [row["loss"] for row in rows]
    if unknown := set(wanted or ()) - set(known):
        raise GridError(f"Got losses {', '.join(sorted(unknown))}: {path.name} has {', '.join(known)}.")
    return [row for row in rows if not wanted or row["loss"] in wanted]


def _cell(
    recipe: dict[str, Any],
    preset: Mapping[str, Any],
    study: str,
    settings: Mapping[str, Any],
    row: Mapping[str, Any],
    data: str | None,
    variant: str,
    seed: int,
    target: float,
    weight: float,
    *,
    sweeps: bool,
) -> Cell:
    config = copy.deepcopy(recipe)
    config["seed_everything"] = seed
    config["data"]["init_args"]["seed"] = seed
    # A study's come last: what it replaces as a whole takes a loss's own settings in it along.
    of_loss = [row.get("overrides", {}), row.get("data_overrides", {}).get(data, {})]
    overrides = [preset.get("overrides", {}), *of_loss, settings.get("overrides", {})]
    for key, value in [item for group in overrides for item in group.items()]:
        _assign(config, key, copy.deepcopy(value))
    form = row["published"] if variant == "published" else {"bound_args": row.get(variant, {})}
    model = config["model"]["init_args"]
    model["bound"] = {
        "class_path": f"lightning_mi.bounds.{form.get('bound', row['bound'])}",
        "init_args": form.get("bound_args", {}),
    }
    regularizer_args = {"weight": weight, "scale": form.get("scale", "log")}
    if (target := form.get("target", target)) != 0:
        regularizer_args["target"] = target
    model["regularizer"] = (
        None
        if variant == "original"
        else {"class_path": "lightning_mi.regularizers.Squared", "init_args": regularizer_args}
    )
    return Cell(
        study, row["loss"], row.get("paper", row["loss"]), variant, seed, target, weight if sweeps else None, config
    )


def _share_out(cell: Cell, devices: int) -> None:
    """Lightning's batches are a device's own: so many make one of the grid."""
    data = cell.config["data"]["init_args"]
    if data["batch_size"] % devices:
        raise GridError(f"Got {devices} devices for batches of {data['batch_size']}: they are shared out equally.")
    data["batch_size"] //= devices
    cell.config["trainer"]["devices"] = devices


def _assign(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if parent not in config:
            raise GridError(f"The override {key!r} names a key that the recipe does not have: {parent!r}.")
        config = config[parent]
    config[last] = value


def _check_keys(mapping: Mapping[str, Any], known: set[str], path: Path) -> None:
    if unknown := set(mapping) - known:
        raise GridError(
            f"{path.name} has the unknown key {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}."
        )
