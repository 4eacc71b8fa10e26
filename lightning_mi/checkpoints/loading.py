"""Finding and reading the checkpoints of an earlier process, for the command line's `--ckpt_path`."""

from lightning_mi.exceptions import CheckpointError

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

Wanted = Literal["best", "last"]
# A scheme, as in s3://bucket or, once it went through a Path, https:/host; two letters at least: C: is a drive.
_ADDRESS = re.compile(r"\w[\w+.-]+:[:/]")








def local_path(path: str | Path) -> Path:
    """The path of a file of this machine.

    Raises:
        CheckpointError: if it is a web address, or one of another store.

    Example:
        >>> local_path("https://example.org/last.ckpt")
        Traceback (most recent call last):
        lightning_mi.exceptions.CheckpointError: https://example.org/last.ckpt is an address, not a file ...
    """
    if _ADDRESS.match(str(path)):
        raise CheckpointError(
            f"{path} is an address, not a file of this machine. Checkpoints are read from files alone, since what an "
            "address serves can change. Download it, look where it comes from, and name the file."
        )
    return Path(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, as :func:`read_plain` reads it.

    Raises:
        CheckpointError: if the file cannot be read so, or is none of Lightning's.
    """
    content = read_plain(path)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path} is not a Lightning checkpoint: it has no `state_dict`.")
    return content


def read_plain(path: Path) -> Any:
    """The content of a file of torch's, tensors on the CPU, with `weights_only=True`: no code in it can run.

    Raises:
        CheckpointError: if the file is missing, damaged, an address, or holds anything but plain data and tensors.
    """
    local_path(path)
    if not path.is_file():
        raise CheckpointError(
            f"there is no checkpoint {path}. Name an existing file; on the command line, --ckpt_path also takes `best` "
            "and `last`."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise CheckpointError(
            f"the checkpoint {path} is damaged, or holds objects other than plain data and tensors, "
            f"which are not loaded because they can run code: {str(problem).splitlines()[0]}"
        ) from None
    except Exception as problem:  # what a damaged or forged file makes its readers raise is of many types
        reason = f"{type(problem).__name__}: {problem}".splitlines()[0]
        raise CheckpointError(f"the checkpoint {path} cannot be read, it may be cut short: {reason}") from None


@contextmanager
def naming_misfits(path: Path) -> Iterator[None]:
    """Turn torch's error about weights of other names or shapes into one that names the checkpoint.

    Raises:
        CheckpointError: the checkpoint's weights do not fit.
    """
    try:
        yield
    except RuntimeError as problem:
        if "Error(s) in loading state_dict" not in str(problem):
            raise
        raise CheckpointError(
            f"the checkpoint {path} does not fit this configuration: {' '.join(str(problem).split())} "
            "Use the configuration, or the arguments, that it was trained with."
        ) from None


def describe_differences(checkpoint: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """One line per hyper-parameter that the checkpoint records with another value than the command line's.

    Args:
        checkpoint: a checkpoint written by the command line; others record too little to compare.
        model: the command line's `model`, with the keys `class_path` and `init_args`.

    Example:
        >>> recorded = {"_class_path": "my.Module", "width": 8, "bound": {"init_args": {"ema_rate": 0.01}}}
        >>> given = {"class_path": "my.Module", "init_args": {"width": 8, "bound": {"init_args": {"ema_rate": 0.1}}}}
        >>> describe_differences({"hyper_parameters": recorded}, given)
        ['model.bound.ema_rate: 0.01 in the checkpoint, 0.1 here']
    """
    recorded = dict(checkpoint.get("hyper_parameters", {}))
    recorded.pop("_instantiator", None)
    recorded["class_path"] = recorded.pop("_class_path", model.get("class_path"))
    given = {"class_path": model.get("class_path"), **(model.get("init_args") or {})}
    then, now = dict(_leaves(recorded, "model")), dict(_leaves(given, "model"))
    differing = [key for key in then if key in now and then[key] != now[key]]
    return [f"{key}: {then[key]!r} in the checkpoint, {now[key]!r} here" for key in differing]








def _leaves(tree: object, key: str) -> Iterator[tuple[str, object]]:
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            # Lightning nests arguments under `init_args`; a reader thinks of them as the class's own
            yield from _leaves(branch, key if name == "init_args" else f"{key}.{name}")
    else:
        yield key, tree
