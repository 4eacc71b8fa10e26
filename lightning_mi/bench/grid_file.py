"""Find and read the files of grids, without importing torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lightning_mi.exceptions import GridError, UnknownRecipeError
from lightning_mi.utilities.recipe_registry import find_file, list_files
from lightning_mi.utilities.suggestions import did_you_mean

REPORTS = ("arrays", "contrastive", "gaussian", "minimize", "onehot", "plane", "supervised")


def unknown_choice(what: str, name: str, file: str, known: Iterable[str]) -> str:
    """The message for a name that a benchmark's file does not have, with the known names."""
    known = list(known)
    return f"Got {what} {name!r}: {file} has {', '.join(known)}.{did_you_mean(name, known)}"


def find_grid_file(name: str) -> Path:
    """The file of a benchmark, by its name or its path, which ends in ``.yaml`` or ``.yml``.

    Raises:
        UnknownRecipeError: If there is no such benchmark or file.
    """
    if not name.endswith((".yaml", ".yml")):
        return find_file(name, "benchmark").path
    if not Path(name).is_file():
        names = [benchmark.name for benchmark in list_files("benchmark")]
        raise UnknownRecipeError(f"there is no file {name}.{did_you_mean(Path(name).stem, names)}")
    return Path(name)


def report_kind(path: Path) -> str:
    """The kind of report of a benchmark's file, which also decides what its cells are.

    Raises:
        GridError: If the file is no benchmark's.
    """
    document = read_mapping(path)
    kind = str(document.get("report", ""))
    if kind not in REPORTS and "report" in document:
        raise GridError(unknown_choice("report", kind, path.name, REPORTS))
    return kind


def is_training(name: str) -> bool:
    """Whether ``bench`` trains what has this name as a sweep: a recipe, its file, or a file with the key ``sweep``.

    A name of both a benchmark and a recipe, such as ``gaussian``, is that of the benchmark.

    Raises:
        GridError: If a file is not valid YAML, or no mapping.
        UnknownRecipeError: If there is no such benchmark, recipe or file.
    """
    if name.endswith((".yaml", ".yml")):
        return not {"model", "sweep"}.isdisjoint(read_mapping(find_grid_file(name)))
    benchmarks, recipes = ([file.name for file in list_files(kind)] for kind in ("benchmark", "recipe"))
    if name in benchmarks:
        return False
    if name in recipes:
        return True
    suggestion = did_you_mean(name, [*benchmarks, *recipes])
    raise UnknownRecipeError(
        f"there is no benchmark or recipe called {name!r}.{suggestion} Known benchmarks: {', '.join(benchmarks)}; "
        "recipes: see `lightning-mi ls`. A file needs its suffix, .yaml."
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file.

    Raises:
        GridError: If it is not valid YAML, or no mapping.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise GridError(f"Got {path}, which is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(document, dict):
        raise GridError(f"Got {path}: it holds no keys. `lightning-mi cp bench/gaussian` copies an example of a grid.")
    return document
