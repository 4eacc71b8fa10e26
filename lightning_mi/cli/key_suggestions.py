"""Suggestions for misspelled keys, classes and values in the error messages of jsonargparse."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from lightning_mi.utilities.recipe_registry import list_files
from lightning_mi.utilities.suggestions import closest, did_you_mean

# Packages with the classes of a key of the configuration, by the last part of the key.
_PACKAGES = {
    "bound": ["lightning_mi.bounds"],
    "callbacks": ["lightning_mi.callbacks", "lightning.pytorch.callbacks"],
    "critic": ["lightning_mi.critics"],
    "data": ["lightning_mi.data"],
    "encoder": ["lightning_mi.encoders"],
    "model": ["lightning_mi"],
    "optimizer": ["torch.optim"],
    "pairs": ["lightning_mi.pairs"],
    "regularizer": ["lightning_mi.regularizers"],
}
_ROOTS = ("config", "trainer", "model", "data", "seed_everything", "ckpt_path", "print_config")
_CLASS = r"Problem with given class_path '([\w.]+)': "


def suggest(message: str) -> str:
    """The suggestion for an error message of jsonargparse, after a space; empty without one.

    Args:
        message: The message, on one line as :func:`~lightning_mi.utilities.parser_errors.readable` returns it.

    Example:
        >>> suggest("Problem with given class_path 'lightning_mi.bounds.NWJ': Option 'cpa' is not accepted")
        ' Did you mean cap?'
        >>> suggest('Parser key "critic": Expected a dot import path string: JointCritc')
        ' Did you mean JointCritic?'
        >>> suggest("unrecognized arguments: --trainr.max_epochs 3")
        ' Did you mean --trainer.max_epochs?'
    """
    for pattern, answer in _ANSWERS:
        for match in re.finditer(pattern, message):
            if suggestion := answer(*match.groups()):
                return suggestion
    return ""


def class_names(key: str) -> list[str]:
    """Names of the public classes for a key of the configuration, such as `model.bound`; empty for an unknown key."""
    names = []
    for package in _PACKAGES.get(key.rpartition(".")[2], []):
        module = importlib.import_module(package)
        names += [name for name in _public_names(module) if inspect.isclass(getattr(module, name))]
    return names


def parameters(owner: Callable[..., Any]) -> list[str]:
    """Names of the parameters of a class; with `**kwargs`, also those of its base classes."""
    if not inspect.isclass(owner):
        return list(inspect.signature(owner).parameters)
    names: dict[str, None] = {}
    for base in owner.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        found = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {each.name: None for each in found if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}
        if all(each.kind != each.VAR_KEYWORD for each in found):
            break
    return [name for name in names if name != "self"]


def _public_names(module: Any) -> list[str]:
    return list(getattr(module, "__all__", [])) or [name for name in dir(module) if not name.startswith("_")]


def load_object(path: str) -> Any:
    """The object with this import path, or None.

    Example:
        >>> load_object("torch.nn.Linear").__name__, load_object("torch.nn.Linaer")
        ('Linear', None)
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def _parameter(path: str, key: str) -> str:
    owner = load_object(path)
    first = key.partition(".")[0]
    return "" if owner is None else did_you_mean(first, parameters(owner))


def _trainer_parameter(key: str) -> str:
    return _parameter("lightning.pytorch.Trainer", key)


def _root(key: str) -> str:
    first, dot, rest = key.partition(".")
    return "".join(f" Did you mean {root}{dot}{rest}?" for root in closest(first, _ROOTS)[:1])


def _class_name(key: str, name: str) -> str:
    return did_you_mean(name, class_names(key))


def _attribute(module: str, name: str) -> str:
    try:
        found = importlib.import_module(module)
    except ImportError:
        return ""
    return did_you_mean(name, _public_names(found), prefix=f"{module}.")


def _module(name: str) -> str:
    return did_you_mean(name, ["lightning_mi", "lightning", "torch", "torchvision"])


def _argument(argument: str) -> str:
    """For an argument that the parser does not know: an option, or a recipe without `--config`."""
    if not argument.startswith("-"):
        recipe = argument in [file.name for file in list_files("recipe")] or argument.endswith((".yaml", ".yml"))
        return f" Did you mean --config {argument}?" if recipe else ""
    key = argument.lstrip("-").partition("=")[0]
    first, dot, rest = key.partition(".")
    if dot and first in _ROOTS:
        return did_you_mean(key, _known_keys(), prefix="--")
    if dot and (roots := closest(first, _ROOTS)):
        return f" Did you mean --{roots[0]}.{rest}?"
    return did_you_mean(key, [*_ROOTS, *_known_keys()], prefix="--")


def _known_keys() -> list[str]:
    found = {"trainer": "lightning.pytorch.Trainer", "model": "lightning_mi.MIEstimationModule"}
    return [f"{root}.{name}" for root, path in found.items() for name in parameters(load_object(path))]


def _choice(choices: str, value: str) -> str:
    return did_you_mean(value, re.findall(r"'([^']*)'", choices))


_ANSWERS: Iterable[tuple[str, Callable[..., str]]] = (
    (r"unrecognized arguments: (\S+)", _argument),
    (r"Subcommand '\w+' does not accept option 'trainer\.([\w.]+)'", _trainer_parameter),
    (r"Subcommand '\w+' does not accept option '([\w.]+)'", _root),
    (r"Group 'trainer' does not accept option '([\w.]+)'", _trainer_parameter),
    (_CLASS + r"Option '([\w.]+)' is not accepted", _parameter),
    (r"Option '([\w.]+)' is not accepted\. Got value: Namespace\(class_path='([\w.]+)'",
     lambda key, path: _parameter(path, key)),
    (r"module '([\w.]+)' has no attribute '(\w+)'", _attribute),
    (r"No module named '([\w.]+)'", _module),
    (r'Parser key "([\w.]+)": (?:Expected [^;]*; )*?Expected a dot import path string: (\w+)', _class_name),
    (r"Literal\[(.*?)\].*?(?:Given|Got) value: ([^;\s]+)", _choice),
    (r"^(?:error: )?Option '([\w.]+)' is not accepted", _root),
)  # fmt: skip
