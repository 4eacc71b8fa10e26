"""What every critic has in common: two ways to call it, and the check of what it is given."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from lightning_mi.scores.tiles import AbstractTiles
from lightning_mi.utilities.view_checks import check_views


class AbstractCritic(nn.Module, ABC):
    """A function T(x, y) of two representations.

    A subclass implements both methods; they agree: ``paired(x, y)`` is the diagonal of ``pairwise(x, y)``.
    """

    @abstractmethod
    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """Score row i of x against row i of y.

        Args:
            x: (N, Dx).
            y: (N, Dy).

        Returns:
            (N,) scores.
        """

    @abstractmethod
    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """Score every row of x against every row of y.

        Args:
            x: (N, Dx).
            y: (M, Dy).

        Returns:
            (N, M) scores.
        """

    def tiles(self, x: Tensor, y: Tensor) -> AbstractTiles | None:
        """How every row of x is scored against every row of y: what :meth:`pairwise` gives, as it is made.

        A critic that says so is scored in memory that does not grow with N x M; None, the default, is any other.

        Args:
            x: (N, Dx).
            y: (M, Dy).
        """
        return None


def check_shapes(x: Tensor, y: Tensor, x_dim: int | None, y_dim: int | None, weight: Tensor | None = None) -> None:
    """Check what a critic takes: x (N, x_dim) and y (M, y_dim), of one type and on one device.

    Args:
        x: (N, Dx).
        y: (M, Dy).
        x_dim: The width of x; None for that of y.
        y_dim: The width of y; None for that of x.
        weight: Of the layer that reads them; None for a critic without weights.

    Raises:
        TypeError: One is not a tensor of floating-point numbers, or their types or that of the weight differ.
        ValueError: One has another shape, or is on another device.
    """
    if not _enters(x, y, weight):
        check_views({"x": x, "y": y}, weight)
    if x.ndim == y.ndim == 2 and x.shape[1] == (x_dim or y.shape[1]) and y.shape[1] == (y_dim or x.shape[1]):
        return
    takes = "(N, D) and (M, D)" if x_dim is None else f"(N, {x_dim}) and (M, {y_dim})"
    for name, view in (("x", x), ("y", y)):
        if view.ndim < 2:
            remedy = f"For one feature per sample, write {name}.unsqueeze(1) or {name}[:, None]."
        elif view.ndim > 2:
            remedy = f"Write {name}.flatten(1), or give an encoder."
        else:
            continue
        break
    else:
        remedy = "Give the critic the widths of the representations, or the encoder the widths of the critic."
    raise ValueError(
        f"Got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: this critic takes {takes}. {remedy}"
    )


def _enters(x: Any, y: Any, weight: Tensor | None) -> bool:
    """Whether both are of the weight's type and on its device: the usual case, in two microseconds of each step."""
    return (
        isinstance(x, Tensor)
        and isinstance(y, Tensor)
        and x.is_floating_point()
        and x.dtype == y.dtype
        and x.device == y.device
        and (weight is None or (weight.dtype == x.dtype and weight.device == x.device))
    )
