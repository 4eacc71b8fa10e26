"""Find and read local checkpoints as plain data and tensors; compare them with a configuration."""

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from lightning_mi.exceptions import CheckpointError

CheckpointAlias = Literal["best", "last"]
# A scheme, as in s3://bucket or, after a round trip through Path, https:/host. Two letters or more: C: is a drive.
_ADDRESS = re.compile(r"\w[\w+.-]+:[:/]")


def local_path(path: str | Path) -> Path:
    """The path of a local file.

    Raises:
        CheckpointError: It is a URL, of the web or of an object store.

    Example:
        >>> local_path("https://example.org/last.ckpt")
        Traceback (most recent call last):
        lightning_mi.exceptions.CheckpointError: Got the URL https://example.org/last.ckpt: ...
    """
    if _ADDRESS.match(str(path)):
        raise CheckpointError(
            f"Got the URL {path}: checkpoints are loaded from local files only, since the content of a URL can change. "
            "Download the file from a source that you trust, and give its path."
        )
    return Path(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a Lightning checkpoint, read by :func:`read_plain`.

    Raises:
        CheckpointError: The file cannot be read, or is not a Lightning checkpoint.
    """
    content = read_plain(path)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"Got {path}: it is not a Lightning checkpoint, since it has no `state_dict`.")
    return content


def read_plain(path: Path) -> Any:
    """Load a file of ``torch.save`` with ``weights_only=True``, tensors on the CPU. No code in it can run.

    Raises:
        CheckpointError: The file is missing, damaged, a URL, or contains anything but plain data and tensors.
    """
    local_path(path)
    if not path.is_file():
        raise CheckpointError(
            f"Got {path}: there is no checkpoint of that name. Name an existing file; on the command line, "
            "--ckpt_path also takes `best` and `last`."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise CheckpointError(
            f"Got {path}: the checkpoint is damaged, or contains objects other than plain data and tensors, which are "
            f"not loaded because they can run code: {str(problem).splitlines()[0]}"
        ) from None
    except Exception as problem:  # damaged and forged files raise errors of many types
        reason = f"{type(problem).__name__}: {problem}".splitlines()[0]
        raise CheckpointError(f"Got {path}: the checkpoint cannot be read, it may be cut short: {reason}") from None


@contextmanager
def explain_mismatch(path: Path) -> Iterator[None]:
    """Context manager: convert torch's error about mismatched weights into a CheckpointError with the path.

    Raises:
        CheckpointError: The checkpoint's weights do not fit.
    """
    try:
        yield
    except RuntimeError as problem:
        if "Error(s) in loading state_dict" not in str(problem):
            raise
        raise CheckpointError(
            f"Got {path}: the checkpoint does not fit this configuration: {' '.join(str(problem).split())} "
            "Use the configuration, or the arguments, of its training."
        ) from None


def describe_differences(checkpoint: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """One line for each hyper-parameter whose value in a checkpoint differs from the value on the command line.

    Args:
        checkpoint: A checkpoint written by the command line; other checkpoints contain too little to compare.
        model: The command line's `model`, with the keys `class_path` and `init_args`.

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
    lines = [f"{key}: {then[key]!r} in the checkpoint, {now[key]!r} here" for key in differing]
    lines += [f"{key}: {part} in the checkpoint, None here" for key, part in _parts_replaced_by_none(then, now)]
    return lines + [f"{key}: None in the checkpoint, {part} here" for key, part in _parts_replaced_by_none(now, then)]


def _parts_replaced_by_none(parts: Mapping[str, object], nones: Mapping[str, object]) -> list[tuple[str, str]]:
    """Keys that are None in one configuration and a part in the other, with the class of the part."""
    keys = [key for key, value in nones.items() if value is None and f"{key}.class_path" in parts]
    return [(key, str(parts[f"{key}.class_path"]).rpartition(".")[2]) for key in keys]


def _leaves(tree: object, key: str) -> Iterator[tuple[str, object]]:
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            # Lightning nests arguments under `init_args`: a level that users do not write.
            yield from _leaves(branch, key if name == "init_args" else f"{key}.{name}")
    else:
        yield key, tree
