"""Maps of y that keep the mutual information, each with its inverse so that the exact log-ratio stays known.

Mutual information does not change under an injective map of either variable, so log p(x, y) / (p(x) p(y)) at a mapped y
is the base law's log-ratio at the inverse image: no Jacobian enters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, final

import torch
from torch import Tensor

TransformName = Literal["identity", "cubic", "asinh", "half_cube", "normal_cdf"]


@final
@dataclass(frozen=True)
class Transform:
    """An elementwise injective map and its inverse.

    Attributes:
        forward: Maps a tensor of any shape, keeping shape and dtype.
        inverse: Undoes it.

    Example:
        >>> cubic = get_transform("cubic")
        >>> cubic.forward(torch.tensor([-2.0, 0.5])), cubic.inverse(torch.tensor([-8.0, 0.125]))
        (tensor([-8.0000,  0.1250]), tensor([-2.0000,  0.5000]))
    """

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]


def get_transform(name: str) -> Transform:
    """The map called ``name``.

    Args:
        name: ``identity``; ``cubic``, y³; ``asinh``; ``half_cube``, y √|y|; ``normal_cdf``, the standard normal
            distribution function (in float32 its inverse is good to 1e-5 up to y = 3 and to 0.05 at y = 5, since
            float32 is coarse near 1; not so in the lower tail).

    Raises:
        ValueError: If there is no such map; the message lists those there are.

    Source:
        ``cubic``: Poole et al. (2019); the others: Czyz et al., *Beyond Normal* (NeurIPS 2023).

    Example:
        >>> get_transform("half_cube").forward(torch.tensor([-4.0]))
        tensor([-8.])
    """
    if name not in TRANSFORMS:
        raise ValueError(f"There is no transform {name!r}. Choose one of: {', '.join(TRANSFORMS)}.")
    return TRANSFORMS[name]


def _identity(y: Tensor) -> Tensor:
    return y


def _cube(y: Tensor) -> Tensor:
    return y**3


def _cube_root(y: Tensor) -> Tensor:
    return y.sign() * y.abs() ** (1 / 3)


def _half_cube(y: Tensor) -> Tensor:
    return y * y.abs().sqrt()


def _half_cube_inverse(y: Tensor) -> Tensor:
    return y.sign() * y.abs() ** (2 / 3)


def _normal_cdf(y: Tensor) -> Tensor:
    # Not torch.special.ndtr, whose lower tail cancels: in float32 it is 5 % off at -5 and 0 at -5.5.
    probability = 0.5 * torch.erfc(-math.sqrt(0.5) * y)
    # A value that rounds to 0 or 1 would have an infinite inverse image; in float32 that is one draw in 20 million.
    info = torch.finfo(y.dtype)
    return probability.clamp(info.tiny, 1 - info.eps / 2)


TRANSFORMS: MappingProxyType[str, Transform] = MappingProxyType(
    {
        "identity": Transform(_identity, _identity),
        "cubic": Transform(_cube, _cube_root),
        "asinh": Transform(torch.asinh, torch.sinh),
        "half_cube": Transform(_half_cube, _half_cube_inverse),
        "normal_cdf": Transform(_normal_cdf, torch.special.ndtri),
    }
)
