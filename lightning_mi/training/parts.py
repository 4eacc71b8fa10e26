"""Check the parts that an MIEstimationModule is created from."""

from typing import Any

from torch import nn

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs import AbstractPairing
from lightning_mi.regularizers import AbstractRegularizer
from lightning_mi.training.online_probe import OnlineLinearProbe
from lightning_mi.utilities.checks import check_instance, describe


def check_parts(critic: Any, bound: Any, pairs: Any, regularizer: Any, probe: Any) -> None:
    """Check the class of each part; the last three may be None.

    Raises:
        TypeError: Names the part, what was received and what to write.

    Example:
        >>> from lightning_mi import bounds, critics
        >>> check_parts(critics.InnerProductCritic(), bounds.DV, None, None, None)
        Traceback (most recent call last):
        TypeError: Got bound=DV, a class: it must be an instance of AbstractBound. Write bound=bounds.DV().
    """
    check_instance("critic", critic, AbstractCritic, "critics.SeparableCritic(x_dim, y_dim)")
    check_instance("bound", bound, AbstractBound, "bounds.DV()")
    optional: list[tuple[str, Any, type, str]] = [
        ("pairs", pairs, AbstractPairing, "pairs.AllPairs()"),
        ("regularizer", regularizer, AbstractRegularizer, "regularizers.Squared(weight=0.1)"),
        ("probe", probe, OnlineLinearProbe, "probes.OnlineLinearProbe(num_features, num_classes)"),
    ]
    for name, value, kind, example in optional:
        if value is not None:
            check_instance(name, value, kind, example)


def encoder_list(encoder: Any) -> list[nn.Module]:
    """The encoders: one for all views, or two, for x and for y; empty for None.

    Raises:
        TypeError: It is not a module, nor a list of modules.
        ValueError: There are more than two, or the list is empty.

    Example:
        >>> len(encoder_list([nn.Flatten(), nn.Identity()])), encoder_list(None)
        (2, [])
    """
    if encoder is None:
        return []
    several = isinstance(encoder, list | tuple | nn.ModuleList)
    encoders = list(encoder) if several else [encoder]
    if len(encoders) not in (1, 2):
        raise ValueError(f"Got {len(encoders)} encoders: give one for all views, or two, for x and for y.")
    for one in encoders:
        if not isinstance(one, nn.Module):
            raise TypeError(
                f"Got {describe('encoder', one)}: an encoder is a torch module. Write encoder=encoders.MLP(in_dim, "
                "out_dim), or encoder=torchvision.models.resnet18(), or override `encode` to call a function."
            )
    return encoders
