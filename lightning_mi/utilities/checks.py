"""Argument checks with one form of error: the received value, its meaning, the remedy."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from lightning_mi._compat.torch_names import unwrap_compiled


def check_instance(name: str, value: Any, kind: type | tuple[type, ...], example: str) -> None:
    """Check that an argument is an instance of a class, or such a module compiled by ``torch.compile``.

    Args:
        name: The argument.
        value: The received value.
        kind: The class, or several.
        example: A valid value, for the message.

    Raises:
        TypeError: The value is of another class.

    Example:
        >>> check_instance("bound", "DV", int, "bounds.DV()")
        Traceback (most recent call last):
        TypeError: Got bound='DV', a str: it must be an instance of int. Write bound=bounds.DV().
    """
    if isinstance(unwrap_compiled(value), kind):
        return
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = " or ".join(kind.__name__ for kind in kinds)
    raise TypeError(f"Got {describe(name, value)}: it must be an instance of {names}. Write {name}={example}.")


def check_factory(name: str, value: Any, product: type | tuple[type, ...], example: str) -> None:
    """Check that an argument is None or a callable that creates an object, not the object itself.

    Args:
        name: The argument.
        value: The received value.
        product: The class of the created object, or several.
        example: A valid value, for the message.

    Raises:
        TypeError: The value is not callable, or is an instance of the class.

    Example:
        >>> check_factory("optimizer", 1e-3, dict, "lambda parameters: torch.optim.Adam(parameters)")
        Traceback (most recent call last):
        TypeError: Got optimizer=0.001, a float: it must be a callable that creates one. Write optimizer=lambda ...
    """
    if value is not None and (isinstance(value, product) or not callable(value)):
        raise TypeError(f"Got {describe(name, value)}: it must be a callable that creates one. Write {name}={example}.")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Check that an argument is one of a few strings.

    Raises:
        ValueError: The value is none of the choices.

    Example:
        >>> check_choice("scheduler_interval", "batch", ("epoch", "step"))
        Traceback (most recent call last):
        ValueError: Got scheduler_interval='batch': it is one of 'epoch', 'step'.
    """
    if value not in choices:
        raise ValueError(f"Got {name}={value!r}: it is one of {', '.join(map(repr, choices))}.")


def check_whole(name: str, value: Any, minimum: int) -> None:
    """Check that an argument is a whole number, at least ``minimum``.

    Raises:
        TypeError: The value is not a whole number.
        ValueError: The value is below the minimum.

    Example:
        >>> check_whole("batch_size", 1, 2)
        Traceback (most recent call last):
        ValueError: Got batch_size=1: it must be at least 2.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"Got {describe(name, value)}: it must be a whole number, at least {minimum}.")
    if int(value) < minimum:
        raise ValueError(f"Got {name}={value}: it must be at least {minimum}.")


def check_number(name: str, value: Any, meaning: str) -> None:
    """Check that an argument is a number of any range.

    Args:
        name: The argument.
        value: The received value.
        meaning: The meaning of the number, for the message.

    Raises:
        TypeError: The value is not a number.

    Example:
        >>> check_number("mi", "2", "the mutual information in nats")
        Traceback (most recent call last):
        TypeError: Got mi='2', a str: it must be a number, the mutual information in nats.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"Got {describe(name, value)}: it must be a number, {meaning}.")


def check_finite(name: str, value: Any, meaning: str) -> None:
    """Check that an argument is a finite number.

    Args:
        name: The argument.
        value: The received value.
        meaning: The meaning of the number, for the message.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is infinite or NaN.

    Example:
        >>> check_finite("target", math.inf, "in nats")
        Traceback (most recent call last):
        ValueError: Got target=inf: it must be a finite number, in nats.
    """
    check_number(name, value, meaning)
    if not math.isfinite(value):
        raise ValueError(f"Got {name}={value}: it must be a finite number, {meaning}.")


def check_positive(name: str, value: Any, meaning: str) -> None:
    """Check that an argument is a positive finite number.

    Args:
        name: The argument.
        value: The received value.
        meaning: The meaning of the number, for the message.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is not positive, infinite or NaN.

    Example:
        >>> check_positive("tau", 0.0, "the clamp of scores, in nats")
        Traceback (most recent call last):
        ValueError: Got tau=0.0: it must be a positive finite number, the clamp of scores, in nats.
    """
    check_number(name, value, meaning)
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"Got {name}={value}: it must be a positive finite number, {meaning}.")


def describe(name: str, value: Any) -> str:
    """An argument and its type, for a message.

    Example:
        >>> describe("bound", dict), describe("probe", 10)
        ('bound=dict, a class', 'probe=10, an int')
    """
    if isinstance(value, type):
        return f"{name}={value.__name__}, a class"
    kind = type(value).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    plain = value is None or isinstance(value, bool | int | float | str)
    return f"{name}={value!r}, {article} {kind}" if plain else f"{name} of type {kind}"
