"""Multilayer perceptrons."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from lightning_mi.utilities.checks import check_whole


def mlp(in_dim: int, hidden: Sequence[int], out_dim: int, bias: bool = True) -> nn.Sequential:
    """Linear layers with ReLU between them; ``bias`` is that of the last one."""
    widths = [in_dim, *hidden]
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        layers += [nn.Linear(width, next_width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out_dim, bias=bias))


def _check_widths(**widths: int) -> None:
    for name, width in widths.items():
        check_whole(name, width, 1)
