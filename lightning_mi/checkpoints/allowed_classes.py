"""Allow-list for class paths in a checkpoint's hyper-parameters: imported modules, optimizers and schedulers.

A checkpoint of the command line records, by import path, the classes of its configuration. Loading it imports and
calls them. A forged file could name any function of any importable module.
"""

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

from lightning_mi.checkpoints.loading import local_path, read_checkpoint
from lightning_mi.exceptions import CheckpointError
from lightning_mi.regularizers import LinearWarmup

_ALLOWED = (nn.Module, Optimizer, LRScheduler, LinearWarmup)
_INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"  # recorded by Lightning's command line
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def check_recorded(hyper_parameters: Mapping[str, Any], replaced: Collection[str], cls: type) -> None:
    """Check that hyper-parameters name allowed classes only.

    Args:
        hyper_parameters: The hyper-parameters of a checkpoint.
        replaced: Names of hyper-parameters that the caller replaces; their recorded values are not used.
        cls: The class that is loaded.

    Raises:
        CheckpointError: A class path names an object that is not imported, or not a module, optimizer or scheduler.

    Example:
        >>> recorded = {"_instantiator": "lightning.pytorch.cli.instantiate_module", "optimizer": "os.system"}
        >>> check_recorded(recorded, (), nn.Module)
        Traceback (most recent call last):
        lightning_mi.exceptions.CheckpointError: Got a checkpoint whose hyper-parameter optimizer names os.system: ...
    """
    if "_instantiator" not in hyper_parameters:
        return  # plain values, which are not imported
    if hyper_parameters["_instantiator"] != _INSTANTIATOR:
        raise CheckpointError(
            f"Got a checkpoint with the instantiator {hyper_parameters['_instantiator']!r}: Lightning's command line "
            f"writes {_INSTANTIATOR!r}. The file was changed, possibly to run code: do not load it."
        )
    recorded = {name: value for name, value in hyper_parameters.items() if name not in {*replaced, "_instantiator"}}
    for key, value in _leaves(recorded, ""):
        if key.rpartition(".")[2] in ("class_path", "_class_path"):
            if not _is_subclass(_find_imported(value), cls if key == "_class_path" else _ALLOWED):
                raise _not_allowed(key, value)
        elif isinstance(value, str) and _IMPORT_PATH.fullmatch(value):
            # An argument whose type is a class or a callable may be a bare path. Other strings may contain dots too.
            named = _find_imported(value)
            is_path = named is not None or _is_importable(value.partition(".")[0])
            if is_path and not _is_subclass(named, _ALLOWED):
                raise _not_allowed(key, value)


def check_loadable(path: str | Path, replaced: Collection[str], cls: type, *, runs_code: bool) -> Path:
    """Check that loading a checkpoint cannot run code that it names or contains.

    Args:
        path: The checkpoint.
        replaced: As in :func:`check_recorded`.
        cls: The class that is loaded.
        runs_code: True if the caller passed ``hparams_file`` or ``weights_only=False``, which allow code.

    Returns:
        The path.

    Raises:
        CheckpointError: It is missing, damaged, a URL, contains objects other than plain data and tensors, or names
            code.
    """
    if runs_code:
        raise CheckpointError(
            "Got hparams_file or weights_only=False: both could run code that a file names or contains. Omit them, and "
            "pass the hyper-parameters that you want to replace by name."
        )
    path = local_path(path)
    content = read_checkpoint(path)
    recorded = {**content.get("hparams", {}), **content.get("module_arguments", {})}  # old names that Lightning reads
    check_recorded({**recorded, **content.get("hyper_parameters", {})}, replaced, cls)
    return path


def _not_allowed(key: str, value: object) -> CheckpointError:
    return CheckpointError(
        f"Got a checkpoint whose hyper-parameter {key} names {value}: it is not an imported module, optimizer or "
        "scheduler, and importing or calling it could run code. If you trust the checkpoint, import the module that "
        "defines it first, or pass the part: load_from_checkpoint(path, critic=...)."
    )


def _is_subclass(named: object, allowed: type | tuple[type, ...]) -> bool:
    return isinstance(named, type) and issubclass(named, allowed)


def _leaves(tree: object, key: str) -> Iterator[tuple[str, object]]:
    """All values by their path. A string that a YAML parser reads as a tree is traversed too."""
    if isinstance(tree, str) and any(mark in tree for mark in ":{["):
        try:
            parsed = yaml.safe_load(tree)
        except yaml.constructor.ConstructorError:  # a tag, which creates an object
            raise _not_allowed(key, tree) from None
        except yaml.YAMLError:
            parsed = None  # not YAML: a plain string
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


def _find_imported(path: object) -> Any:
    """The object at an import path, without importing anything but this package; None if there is none."""
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
        return True  # unknown without importing it: treated as a path
