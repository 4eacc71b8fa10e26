"""What a checkpoint's hyper-parameters may name: classes of parts, imported already, and nothing else."""

import importlib.util
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_mi.exceptions import CheckpointError
from lightning_mi.checkpoints.loading import local_path, read_checkpoint
from lightning_mi.regularizers import LinearWarmup

_PARTS = (nn.Module, Optimizer, LRScheduler, LinearWarmup)
_INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def check_recorded(hyper_parameters: Mapping[str, Any], replaced: Collection[str], cls: type) -> None:
    """Refuse hyper-parameters that name code other than the parts of a module.

    A checkpoint of the command line records by their import paths the classes that it was configured with, and loading
    it instantiates them. A file from elsewhere could name any function of any importable module.

    Args:
        hyper_parameters: Of a checkpoint.
        replaced: Names whose values are not taken from it.
        cls: What is loaded.

    Raises:
        CheckpointError: It names something that is not a module, an optimizer or a scheduler, or not imported.

    Example:
        >>> recorded = {"_instantiator": "lightning.pytorch.cli.instantiate_module", "optimizer": "os.system"}
        >>> check_recorded(recorded, (), nn.Module)
        Traceback (most recent call last):
        lightning_mi.exceptions.CheckpointError: the checkpoint's hyper-parameter optimizer names os.system, ...
    """
    if "_instantiator" not in hyper_parameters:
        return  # values alone, which no one looks up
    if hyper_parameters["_instantiator"] != _INSTANTIATOR:
        raise CheckpointError(
            f"the checkpoint wants to be instantiated by {hyper_parameters['_instantiator']!r}, not by Lightning's "
            "command line. It was made or changed by someone to run code: do not load it."
        )
    recorded = {name: value for name, value in hyper_parameters.items() if name not in {*replaced, "_instantiator"}}
    for key, value in _leaves(recorded, ""):
        if key.rpartition(".")[2] in ("class_path", "_class_path"):
            found = _imported(value)
            if not (isinstance(found, type) and issubclass(found, cls if key == "_class_path" else _PARTS)):
                raise _refusal(key, value)
        elif isinstance(value, str) and _IMPORT_PATH.fullmatch(value):
            # Where a function or a class is asked for, its path may stand alone; elsewhere this is a name with dots.
            found = _imported(value)
            is_part = isinstance(found, type) and issubclass(found, _PARTS)
            if not is_part and (found is not None or _is_importable(value.partition(".")[0])):
                raise _refusal(key, value)


def check_loadable(path: str | Path, replaced: Collection[str], cls: type, *, runs_code: bool) -> Path:
    """Refuse a checkpoint whose loading could run code that it names or holds.

    Args:
        path: Of the checkpoint.
        replaced: Names of hyper-parameters whose values are not taken from it.
        cls: What is loaded.
        runs_code: Whether it was asked to be loaded in a way that can.

    Returns:
        The path.

    Raises:
        CheckpointError: It is missing, damaged, an address, holds objects other than plain data and tensors, or names
            code.
    """
    if runs_code:
        raise CheckpointError(
            "hparams_file and weights_only=False could run code that a file names or holds. Leave them out, and "
            "give the hyper-parameters that you would replace by name."
        )
    path = local_path(path)
    content = read_checkpoint(path)
    recorded = {**content.get("hparams", {}), **content.get("module_arguments", {})}  # old names, which still count
    check_recorded({**recorded, **content.get("hyper_parameters", {})}, replaced, cls)
    return path


def _refusal(key: str, value: object) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint's hyper-parameter {key} names {value}, which is no module, optimizer or scheduler that is "
        "imported: it is not imported from here, since importing and calling run code. If you trust the checkpoint, "
        "import the module that defines it first, or name the part: load_from_checkpoint(path, critic=...)."
    )


def _leaves(tree: object, key: str) -> Iterator[tuple[str, object]]:
    """All values by their path, also those within text that a parser would read as a tree."""
    if isinstance(tree, str) and any(mark in tree for mark in ":{["):
        try:
            parsed = yaml.safe_load(tree)
        except yaml.YAMLError as problem:
            if isinstance(problem, yaml.constructor.ConstructorError):  # a tag, which stands for an object
                raise _refusal(key, tree) from None
            parsed = None  # no parser reads it either
        if isinstance(parsed, dict | list):
            yield from _leaves(parsed, key)
            return
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _leaves(branch, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list | tuple):
        for branch in tree:
            yield from _leaves(branch, key)
    else:
        yield key, tree


def _imported(path: object) -> Any:
    """What an import path names, of what is imported already and of this package; None if that is nothing."""
    parts = str(path).split(".")
    if parts[0] == "lightning_mi" and ".".join(parts[:2]) not in sys.modules and _is_importable(".".join(parts[:2])):
        importlib.import_module(".".join(parts[:2]))
    for length in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        if module is not None:
            found: Any = module
            for name in parts[length:]:
                found = getattr(found, name, None)
            return found
    return None


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return True  # not to be told without importing
