"""One optimizer for all members of an ensemble."""

from collections.abc import Sequence
from typing import Any

from torch import optim
from torch.optim import Optimizer

from lightning_mi.ensemble.groups import AbstractGroup, Members
from lightning_mi.ensemble.vmap_group import group_members

# Elementwise updates: with stacked parameters, each member trains as in a separate training.
_ELEMENTWISE = (
    *(optim.SGD, optim.Adam, optim.AdamW, optim.Adamax, optim.NAdam, optim.RAdam, optim.RMSprop),
    *(optim.Adagrad, optim.Adadelta, optim.ASGD, optim.Rprop),
)


def make_optimizer(
    members: Members, batched: bool, separate_batches: bool = False
) -> tuple[Optimizer, list[tuple[AbstractGroup, list[int]]]]:
    """One optimizer with the parameters and settings of the members' optimizers, and the groups of members.

    Args:
        members: The members of an ensemble.
        batched: As in :func:`group_members`.
        separate_batches: As in :func:`group_members`.

    Raises:
        ValueError: The members' optimizers have several classes, or one whose update is not elementwise.
    """
    configured = [member.configure_optimizers() for member in members]
    optimizers = [optimizer for optimizer in configured if isinstance(optimizer, Optimizer)]
    classes = list(dict.fromkeys(type(optimizer) for optimizer in optimizers))
    if len(classes) > 1 or not issubclass(classes[0], _ELEMENTWISE):
        raise ValueError(
            f"Got optimizers {', '.join(cls.__name__ for cls in classes)}: members of an ensemble share one class of "
            "torch.optim with an elementwise update, such as SGD, Adam or AdamW. Train members with another optimizer "
            "in another ensemble, or each separately."
        )
    member_groups = [optimizer.param_groups for optimizer in optimizers]
    groups = group_members(members, member_groups, batched, separate_batches)
    param_groups = [
        param_group
        for group, indices in groups
        for param_group in group.param_groups([member_groups[i] for i in indices])
    ]
    optimizer: Optimizer = classes[0](_merge(param_groups))
    return optimizer, groups


def _merge(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge parameter groups with the same settings: a fused optimizer updates each group in one call."""
    merged: list[dict[str, Any]] = []
    for group in groups:
        for other in merged:
            if {**other, "params": None} == {**group, "params": None}:
                other["params"] += group["params"]
                break
        else:
            merged.append({**group, "params": [*group["params"]]})
    return merged
