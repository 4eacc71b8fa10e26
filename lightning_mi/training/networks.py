"""Networks of the views: encoders, projection heads, and the momentum encoder of the second view."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_mi._compat.torch_names import unwrap_compiled
from lightning_mi.pairs import AbstractPairing
from lightning_mi.training.gradient_cache import encode_in_chunks
from lightning_mi.utilities.checks import check_number, describe

_EXAMPLES = {
    "encoder": "encoder=encoders.MLP(in_dim, hidden, out_dim=D), or encoder=torchvision.models.resnet18(), or override "
    "`encode` to call a function.",
    "head": "head=encoders.MLP(D, hidden, out_dim=K), or override `project` to call a function.",
}


def network_list(role: str, networks: Any) -> list[nn.Module]:
    """The encoders or the heads as a list: one for all views, or two, for x and for y; empty for None.

    Args:
        role: ``"encoder"`` or ``"head"``, for the message.
        networks: A module, a list of modules, or None.

    Raises:
        TypeError: The argument is neither a module nor a list of modules.
        ValueError: There are more than two modules, or the list is empty.

    Example:
        >>> len(network_list("encoder", [nn.Flatten(), nn.Identity()])), network_list("head", None)
        (2, [])
    """
    if networks is None:
        return []
    listed = list(networks) if isinstance(networks, list | tuple | nn.ModuleList) else [networks]
    if len(listed) not in (1, 2):
        raise ValueError(f"Got {len(listed)} {role}s: give one for all views, or two, for x and for y.")
    for item in listed:
        if not isinstance(item, nn.Module):
            article = "an" if role[0] in "aeiou" else "a"
            raise TypeError(f"Got {describe(role, item)}: {article} {role} is a torch module. Write {_EXAMPLES[role]}")
    return listed


def check_head(heads: Iterable[nn.Module], encodes: bool) -> None:
    """Check that a head has an encoder before it.

    Raises:
        ValueError: There is a head and no encoder.

    Example:
        >>> check_head([nn.Identity()], encodes=False)
        Traceback (most recent call last):
        ValueError: Got a head without an encoder: a head maps the encoder's representations, and the raw views ...
    """
    if list(heads) and not encodes:
        raise ValueError(
            "Got a head without an encoder: a head maps the encoder's representations, and the raw views are none. "
            "Give the backbone as `encoder`, or give this network as `encoder` without a head."
        )


def apply_by_view(networks: Iterable[nn.Module], views: Sequence[Any], chunk_size: int | None) -> Sequence[Any]:
    """Each view through its network: x through the first and y through the second, if there are two.

    Args:
        networks: The networks, which alternate over the views; without any, the views are returned.
        views: The inputs.
        chunk_size: Samples that a network processes at a time (gradient cache); None for the whole batch.

    Raises:
        TypeError: A view is not a tensor and there is a chunk size.
        ValueError: A network normalizes by batch statistics and there is a chunk size.

    Example:
        >>> networks = [nn.Linear(3, 2), nn.Linear(3, 5)]
        >>> [view.shape[1] for view in apply_by_view(networks, [torch.zeros(4, 3)] * 3, chunk_size=None)]
        [2, 5, 2]
    """
    networks = list(networks)
    if not networks:
        return views
    pairs = [(networks[i % len(networks)], view) for i, view in enumerate(views)]
    if chunk_size is not None:
        return [encode_in_chunks(network, view, chunk_size) for network, view in pairs]
    return [network(view) for network, view in pairs]


@final
class MomentumEncoder(nn.Module):
    r"""Exponential moving average of an encoder and its head, for the second view; without gradient.

    .. math:: \bar\theta \leftarrow m \bar\theta + (1 - m) \theta

    after every optimizer step that changes the weights :math:`\theta`. It starts as a copy. Its parameters take no
    gradient and are part of the module's state dict.

    Buffers are not averaged: BatchNorm's running statistics are those of the momentum encoder's own forward passes,
    with batch statistics in training.

    With 16-bit weights (``precision="bf16-true"``) updates below the rounding of a weight are lost. Mixed precision
    keeps weights of 32 bits.

    Args:
        encoder: The encoder.
        head: The projection head, or None.
        momentum: m, at least 0 and below 1; 0 copies the weights after each step.

    Attributes:
        encoder: The average of the encoder.
        head: The average of the head, or None.
        momentum: m; it may be changed during training. It is no part of the state dict.

    Raises:
        TypeError: The momentum is not a number.
        ValueError: The momentum is out of range, or a parameter has no shape yet.

    Source: He et al. 2020, section 3.2 (MoCo); Grill et al. 2020, section 3.1 (BYOL).

    Example:
        >>> encoder = nn.Linear(2, 2)
        >>> average = MomentumEncoder(encoder, None, momentum=0.9)
        >>> average.encoder(torch.ones(3, 2)).requires_grad
        False
    """

    def __init__(self, encoder: nn.Module, head: nn.Module | None, momentum: float) -> None:
        super().__init__()
        check_number("encoder_momentum", momentum, "the fraction of the average that each step keeps")
        if not 0 <= momentum < 1:
            raise ValueError(f"Got encoder_momentum={momentum}: it is at least 0 and below 1, such as 0.99.")
        if any(is_lazy(parameter) for parameter in _parameters([encoder, head])):
            raise ValueError(
                "Got encoder_momentum with a lazy module: its parameters have no shape yet, so they cannot be copied. "
                "Pass one batch through the network first."
            )
        self.momentum = momentum
        memo: dict[int, Any] = {}  # one for both: they may share parameters
        self.encoder = _WithoutGradient(copy.deepcopy(unwrap_compiled(encoder), memo))
        self.head = None if head is None else _WithoutGradient(copy.deepcopy(unwrap_compiled(head), memo))

    @torch.no_grad()
    def update(self, encoder: nn.Module, head: nn.Module | None) -> None:
        """Move the average towards the weights of the encoder and the head."""
        for average, parameter in zip(self.parameters(), _parameters([encoder, head]), strict=True):
            average.lerp_(parameter, 1 - self.momentum)

    def extra_repr(self) -> str:
        """The momentum, for ``print(module)``."""
        return f"momentum={self.momentum}"


def momentum_encoder(
    encoders: Iterable[nn.Module], heads: Iterable[nn.Module], pairs: AbstractPairing, momentum: float | None
) -> MomentumEncoder | None:
    """The momentum encoder of a module; None without a momentum.

    Raises:
        TypeError: As :class:`MomentumEncoder`.
        ValueError: As :class:`MomentumEncoder`; or there is not one encoder, there are two heads, or the pairing takes
            one view.

    Example:
        >>> from lightning_mi.pairs import AllPairs
        >>> momentum_encoder([], [], AllPairs(), 0.99)
        Traceback (most recent call last):
        ValueError: Got encoder_momentum=0.99 with 0 encoders and 0 heads: the second view is encoded by the average ...
    """
    if momentum is None:
        return None
    encoders, heads = list(encoders), list(heads)
    if len(encoders) != 1 or len(heads) > 1:
        raise ValueError(
            f"Got encoder_momentum={momentum} with {len(encoders)} encoders and {len(heads)} heads: the second view is "
            "encoded by the average of one encoder (and one head), which learns from the first view. Give one encoder "
            "and at most one head, or omit encoder_momentum."
        )
    if pairs.num_views == 1:
        raise ValueError(
            f"Got encoder_momentum={momentum} with {type(pairs).__name__}, which takes one view: the momentum encoder "
            "encodes the second view. Use a pairing of two views, such as pairs.AllPairs()."
        )
    return MomentumEncoder(encoders[0], next(iter(heads), None), momentum)


class _WithoutGradient(nn.Module):
    """A network whose parameters and outputs take no gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)

    @torch.no_grad()
    def forward(self, view: Any) -> Any:
        return self.network(view)


def _parameters(networks: Iterable[nn.Module | None]) -> list[Tensor]:
    """The parameters of networks, each once."""
    return list(nn.ModuleList(network for network in networks if network is not None).parameters())
