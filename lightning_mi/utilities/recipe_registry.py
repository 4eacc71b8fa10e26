"""Find recipes and benchmarks, and their purpose. Imports nothing heavy, so that `lightning-mi ls` is fast."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from lightning_mi.exceptions import UnknownRecipeError
from lightning_mi.utilities.suggestions import did_you_mean

Kind = Literal["recipe", "benchmark"]

_PACKAGE = Path(__file__).resolve().parents[1]
_BENCHMARKS = "bench"  # folder of the benchmarks; all other files are recipes


@final
@dataclass(frozen=True)
class RecipeFile:
    """A YAML file of the package.

    Attributes:
        name: Name on the command line: the path in the recipes folder without suffix.
        kind: `"recipe"` for one training, `"benchmark"` for a grid of trainings.
        path: The file.
    """

    name: str
    kind: Kind
    path: Path

    @property
    def purpose(self) -> str:
        """The first comment line of the file; empty if the file does not begin with a comment."""
        with self.path.open(encoding="utf-8") as lines:
            first = next(lines, "").strip()
        return first.lstrip("#").strip() if first.startswith("#") else ""


def recipes_folder() -> Path:
    """Folder of the recipes: inside an installed package, beside the package in an editable install.

    Raises:
        FileNotFoundError: If neither exists, because the installation is broken.

    Example:
        >>> (recipes_folder() / "gaussian.yaml").is_file()
        True
    """
    for folder in (_PACKAGE / "recipes", _PACKAGE.parent / "recipes"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"Found no recipes in {_PACKAGE / 'recipes'} or beside the package: the installation is incomplete. Run "
        "`pip install --force-reinstall lightning_mi`."
    )


def list_files(kind: Kind) -> list[RecipeFile]:
    """All recipes, or all benchmarks, sorted by name.

    Example:
        >>> [recipe.name for recipe in list_files("recipe") if recipe.name == "onehot"]
        ['onehot']
    """
    return sorted(_scan(kind), key=lambda recipe: recipe.name)


def find_file(name: str, kind: Kind) -> RecipeFile:
    """The recipe or benchmark called `name`.

    Raises:
        UnknownRecipeError: If there is none; the message lists the known names.

    Example:
        >>> find_file("gaussian", "recipe").path.name
        'gaussian.yaml'
    """
    known = list_files(kind)
    for recipe in known:
        if recipe.name == name:
            return recipe
    names = ", ".join(recipe.name for recipe in known) or "none"
    suggestion = did_you_mean(name, [recipe.name for recipe in known])
    raise UnknownRecipeError(f"there is no {kind} called {name!r}.{suggestion} Known {kind}s: {names}.")


def _scan(kind: Kind) -> Iterator[RecipeFile]:
    folder = recipes_folder()
    if kind == "benchmark":
        folder = folder / _BENCHMARKS
    for path in folder.rglob("*.yaml"):
        name = path.relative_to(folder).with_suffix("")
        if kind == "benchmark" or name.parts[0] != _BENCHMARKS:
            yield RecipeFile(name=name.as_posix(), kind=kind, path=path)
