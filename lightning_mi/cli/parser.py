"""The parser of a training's configuration: Lightning's, with recipes, linked values and suggestions.

1. An error is one line, with the closest known name.
2. Options have no abbreviations.
3. `--config` accepts the name of a recipe as well as a file.
4. An override of a value that has an anchor in the configuration file also sets the aliases of this anchor.
5. `null` is accepted at any depth, such as `--model.bound.cap null`.
"""

import ast
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, final

import yaml
from jsonargparse import ActionConfigFile
from lightning.pytorch.cli import LightningArgumentParser

from lightning_mi.cli.key_suggestions import suggest
from lightning_mi.exceptions import UnknownRecipeError
from lightning_mi.utilities.linked_values import linked_keys, short_key
from lightning_mi.utilities.parser_errors import readable
from lightning_mi.utilities.recipe_registry import find_file, list_files
from lightning_mi.utilities.suggestions import did_you_mean

_HINT = "`lightning-mi fit --help` shows examples and every option, `lightning-mi ls` the recipes for --config."


class ConfigurationError(Exception):
    """Invalid value in the configuration, or an output folder that cannot be written."""


def tracebacks_enabled() -> bool:
    """Whether `JSONARGPARSE_DEBUG=true` is set, for tracebacks instead of one-line errors."""
    return os.environ.get("JSONARGPARSE_DEBUG", "").lower() == "true"


@final
class TrainingParser(LightningArgumentParser):
    """Lightning's parser with one-line errors, without the usage of hundreds of options, and without abbreviations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the reason and a suggestion, and exit with status 2."""
        if not self.exit_on_error or tracebacks_enabled():
            super().error(message, ex)
        program = self.prog.replace(" [options]", "")
        reason = readable(message)
        suggestion = suggest(reason)
        stop = "." if suggestion and not reason.endswith(".") else ""
        self.exit(2, f"{program}: error: {reason}{stop}{suggestion}\n{_HINT}\n")

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Parse arguments. Called by jsonargparse with one argument for a value of a nested class."""
        if isinstance(args, list) and len(args) == 1:
            args = [_as_yaml(args[0])]
        return super().parse_args(args, *more, **options)


def _as_yaml(argument: Any) -> Any:
    """One argument `--key=value` of a nested class, whose value jsonargparse wrote as Python, with its value as YAML.

    Example:
        >>> _as_yaml("--cap=None"), _as_yaml("--widths=[1, None]"), _as_yaml("--name=abc")
        ('--cap=null', '--widths=[1, null]', '--name=abc')
    """
    if not isinstance(argument, str):
        return argument
    option, equals, value = argument.partition("=")
    if not equals or not (value == "None" or value.startswith(("[", "{"))):
        return argument
    try:
        return f"{option}={json.dumps(ast.literal_eval(value))}"
    except (ValueError, SyntaxError, TypeError):  # YAML already
        return argument


def add_config_option(parser: LightningArgumentParser) -> None:
    """Add `--config`."""
    parser.add_argument(
        "-c", "--config", action=ActionConfigFile, help="A recipe's name (see `lightning-mi ls`) or a YAML file."
    )


def resolve(arguments: Sequence[str]) -> list[str]:
    """The arguments with files for recipe names, and with the values that their overrides are linked to.

    The links are those of the last configuration file, for the overrides after it.

    Raises:
        ConfigurationError: If a recipe or file does not exist.
    """
    resolved = list(arguments)
    end, file = 0, None
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in ("--config", "-c"):
            if equals:
                file = config_file(value)
                resolved[index], end = f"{option}={file}", index + 1
            elif index + 1 < len(arguments):
                file = config_file(arguments[index + 1])
                resolved[index + 1], end = file, index + 2
    return resolved if file is None else [*resolved[:end], *_linked(Path(file), resolved[end:]), *resolved[end:]]


def _linked(file: Path, overrides: Sequence[str]) -> Iterator[str]:
    """Options for the aliases of the anchors that the overrides set."""
    try:
        links = linked_keys(file)
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return  # the parser of the configuration raises
    for index, argument in enumerate(overrides):
        option, equals, value = argument.partition("=")
        if not equals and index + 1 < len(overrides):
            value = overrides[index + 1]
        for key in links.get(short_key(option.removeprefix("--")), ()):
            yield f"--{key}={value}"


def config_file(value: str) -> str:
    """The configuration file for a value of `--config`: a recipe's name or a path.

    Raises:
        ConfigurationError: If there is no such recipe or file.
    """
    if Path(value).suffix:
        if not Path(value).is_file():
            suggestion = did_you_mean(value.removesuffix(".yaml"), [recipe.name for recipe in list_files("recipe")])
            raise ConfigurationError(
                f"got --config {value}: there is no such file.{suggestion} `lightning-mi ls` lists recipes."
            )
        return value
    try:
        return str(find_file(value, "recipe").path)
    except UnknownRecipeError as error:
        if Path(value).name != value and Path(value).is_file():  # a path, which cannot be a misspelled recipe
            return value
        raise ConfigurationError(
            f"got --config {value}: {error} A configuration file needs its suffix: {value}.yaml."
        ) from None
