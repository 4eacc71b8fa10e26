"""The parser of the light commands: no abbreviations, and suggestions for misspelled commands, options and choices."""

import argparse
import re
from typing import Any, NoReturn, final

from lightning_mi.utilities.suggestions import did_you_mean


@final
class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviations of options, whose errors suggest the closest name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        """Print the message in one line, with a suggestion, and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}{self._suggest(message)}\n`{self.prog} --help` shows examples.\n")

    def _suggest(self, message: str) -> str:
        if match := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            return "." + did_you_mean(match[1], re.findall(r"[\w-]+", match[2]))
        if match := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            options = re.findall(r"--([a-z][\w-]*)", self.format_help())
            return "." + did_you_mean(match[1].removeprefix("--"), options, prefix="--")
        return ""


def positive(text: str) -> int:
    """A whole number, at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}: it must be a positive whole number")
    return int(text)


def gpus(text: str) -> float:
    """A whole number of GPUs, or a fraction of one."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (0 <= number <= 1 or (number > 1 and number.is_integer())):  # what Ray can reserve
        raise argparse.ArgumentTypeError(f"got {text!r}: it must be a whole number of GPUs or a fraction of one")
    return number


def seed(text: str) -> int:
    """A whole number, at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}: a seed is a whole number, at least 0")
    return int(text)
