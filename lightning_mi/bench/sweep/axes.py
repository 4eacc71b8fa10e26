"""The axes of a sweep: a key of the configuration and its values, as they are written on the command line."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

from lightning_mi.exceptions import GridError
from lightning_mi.utilities.linked_values import short_key

_EXAMPLE = "such as --sweep model.regularizer.weight=0.01,0.1,1"


@final
@dataclass(frozen=True)
class Axis:
    """One axis of a sweep.

    Attributes:
        key: Dotted key of the configuration, with or without ``init_args``.
        values: Its values, each in the form of the command line. A single value is a setting of all runs.
    """

    key: str
    values: tuple[str, ...]


def parse_axis(text: str) -> Axis:
    """The axis of ``KEY=VALUE,VALUE``. Commas in brackets, braces or quotes do not separate values.

    Raises:
        GridError: If there is no key or value, or a value is empty or there twice.

    Example:
        >>> parse_axis("model.critic.hidden=[64,64],[128]")
        Axis(key='model.critic.hidden', values=('[64,64]', '[128]'))
    """
    key, equals, rest = text.partition("=")
    if not equals:
        raise GridError(f"Got --sweep {text}: it has no values. Write KEY=VALUE,VALUE, {_EXAMPLE}.")
    if not re.fullmatch(r"[\w.]+", key.strip()):
        raise GridError(f"Got --sweep {text}: it has no key. Write KEY=VALUE,VALUE, {_EXAMPLE}.")
    return make_axis(key.strip(), _split(rest))


def make_axis(key: str, values: Sequence[str]) -> Axis:
    """An axis with these values.

    Raises:
        GridError: If there is no value, or a value is empty or there twice.
    """
    values = [value.strip() for value in values]
    if values in ([], [""]):
        raise GridError(f"Got --sweep {key}= without a value: there is nothing to run. Write values, {_EXAMPLE}.")
    if "" in values:
        raise GridError(
            f"Got --sweep {key}={','.join(values)}: value {values.index('') + 1} is empty. Drop a comma, or write null."
        )
    if repeated := [value for value, times in Counter(values).items() if times > 1]:
        raise GridError(f"Got --sweep {key}={','.join(values)}: {repeated[0]} is there twice. Drop one of them.")
    return Axis(key, tuple(values))


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets, braces and quotes."""
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "[{(") - (character in "]})")
        if character == "," and not quote and depth == 0:
            values.append("")
        else:
            values[-1] += character
    return values


def points(axes: Sequence[Axis]) -> Iterator[dict[str, str]]:
    """All combinations of values, by key; the last axis varies fastest.

    Raises:
        GridError: If a key is there twice.

    Example:
        >>> list(points([Axis("a.b", ("1", "2")), Axis("c", ("x",))]))
        [{'a.b': '1', 'c': 'x'}, {'a.b': '2', 'c': 'x'}]
    """
    if repeated := [key for key, times in Counter(short_key(axis.key) for axis in axes).items() if times > 1]:
        raise GridError(f"Got --sweep {repeated[0]} twice: write all values of a key in one --sweep.")
    for values in product(*(axis.values for axis in axes)):
        yield dict(zip((axis.key for axis in axes), values, strict=True))


def labels(axes: Sequence[Axis]) -> dict[str, str]:
    """Column names of the axes with several values, by key: the shortest ends of their keys that differ.

    Example:
        >>> labels([Axis("model.critic.hidden", ("1", "2")), Axis("model.encoder.hidden", ("3", "4"))])
        {'model.critic.hidden': 'critic.hidden', 'model.encoder.hidden': 'encoder.hidden'}
        >>> labels([Axis("data.init_args.mi", ("2", "4")), Axis("data.batch_size", ("64",))])
        {'data.init_args.mi': 'mi'}
    """
    keys = {axis.key: short_key(axis.key).split(".") for axis in axes if len(axis.values) > 1}
    found = {}
    for key, parts in keys.items():
        others = [other for each, other in keys.items() if each != key]
        length = next(
            (n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others)), len(parts)
        )
        found[key] = ".".join(parts[-length:])
    return found


def value_label(value: str) -> str:
    """A value as it is shown in names and tables: of a class path its last part.

    Example:
        >>> value_label("lightning_mi.bounds.NWJ"), value_label("0.5"), value_label("[64, 64]")
        ('NWJ', '0.5', '[64,64]')
    """
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value):
        return value.rpartition(".")[2]
    return value.replace(" ", "")
