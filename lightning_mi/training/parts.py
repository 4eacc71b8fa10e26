"""Parts of an MIEstimationModule: argument checks, and the record of parts in a checkpoint."""

from collections.abc import Collection, Mapping
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from lightning_mi._compat.torch_names import unwrap_compiled
from lightning_mi.exceptions import CheckpointError, InexactResumeWarning

PARTS_ENTRY = "lightning_mi_parts"  # of a checkpoint: class names by argument


def part_names(parts: Mapping[str, Any]) -> dict[str, str]:
    """Class names of the parts that are not None, for the record in a checkpoint.

    Example:
        >>> part_names({"critic": nn.Linear(2, 2), "encoder": [nn.Flatten(), nn.Identity()], "probe": None})
        {'critic': 'Linear', 'encoder': '[Flatten, Identity]'}
    """
    return {name: _class_name(part) for name, part in parts.items() if part is not None}


def check_parts_given(recorded: Mapping[str, str], given: Collection[str], cls: type) -> None:
    """Raise if a module is loaded from a checkpoint without a part that the checkpoint was saved with.

    Args:
        recorded: Class names of the checkpoint's parts.
        given: Names of the parts of the loaded module, and of arguments that are None on purpose.
        cls: Class of the module, for the message.

    Raises:
        CheckpointError: A part is missing. The message shows the call.

    Example:
        >>> check_parts_given({"critic": "JointCritic", "bound": "DV"}, (), nn.Module)
        Traceback (most recent call last):
        lightning_mi.exceptions.CheckpointError: Got no critic, bound: a checkpoint holds the weights of parts, not ...
    """
    missing = [name for name in recorded if name not in given]
    if not missing:
        return
    call = ", ".join(
        f"{name}={value if value.startswith('[') else f'{value}(...)'}" for name, value in recorded.items()
    )
    optional = [name for name in missing if name not in ("critic", "bound")]
    remedy = f" {optional[0]}=None drops a part." if optional else ""
    raise CheckpointError(
        f"Got no {', '.join(missing)}: a checkpoint holds the weights of parts, not the objects. Create the parts with "
        f"the arguments of the training: {cls.__name__}.load_from_checkpoint(path, {call}).{remedy}"
    )


def warn_of_other_parts(recorded: Mapping[str, str], current: Mapping[str, str]) -> None:
    """Warn if a training resumes with other parts than it started with.

    Args:
        recorded: Class names of the checkpoint's parts.
        current: Class names of the module's parts.

    Warns:
        InexactResumeWarning: A part was replaced, added or removed.
    """
    names = dict.fromkeys([*recorded, *current])
    changes = [
        f"{name}={recorded.get(name)} (now {current.get(name)})"
        for name in names
        if recorded.get(name) != current.get(name)
    ]
    if changes:
        rank_zero_warn(
            f"Got a checkpoint of a training with {', '.join(changes)}: the training resumes with other parts. If it "
            "was saved within an epoch, new metrics of that epoch cover only the batches after it.",
            category=InexactResumeWarning,
        )


def _class_name(part: Any) -> str:
    if isinstance(part, list | tuple | nn.ModuleList):
        return f"[{', '.join(map(_class_name, part))}]"
    return type(unwrap_compiled(part)).__name__
