"""Base class of critics, and their common argument checks."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from lightning_mi.scores.tiles import AbstractTiles
from lightning_mi.utilities.checks import check_whole
from lightning_mi.utilities.view_checks import check_views


class AbstractCritic(nn.Module, ABC):
    """A function T(x, y) of two representations.

    A subclass implements :meth:`paired` and :meth:`pairwise`: ``paired(x, y)`` is the diagonal of ``pairwise(x, y)``.

    Attributes:
        is_log_density: The scores are log-densities, T(x, y) = log q(y | x): for each x, exp(T) has integral 1 over y.
            Pairings of all pairs then compare y with every x: a row of scores is one y.
    """

    is_log_density: ClassVar[bool] = False

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
        """The scores of :meth:`pairwise` in tiles, in memory that does not grow with N x M.

        None, the default, means that the critic has no tiled form; all scores are then computed at once.

        Args:
            x: (N, Dx).
            y: (M, Dy).
        """
        return None


def check_shapes(x: Tensor, y: Tensor, x_dim: int | None, y_dim: int | None, weight: Tensor | None = None) -> None:
    """Check that x is (N, x_dim) and y is (M, y_dim), of one dtype and on one device.

    Args:
        x: (N, Dx).
        y: (M, Dy).
        x_dim: The width of x; None for the width of y.
        y_dim: The width of y; None for the width of x.
        weight: A weight of the critic's first layer; None for a critic without weights.

    Raises:
        TypeError: x or y is not a tensor of floating-point numbers, or x, y and the weight differ in dtype.
        ValueError: x or y has a wrong shape, or x, y and the weight are on different devices.
    """
    check_views({"x": x, "y": y}, weight)
    if x.ndim == y.ndim == 2 and x.shape[1] == (x_dim or y.shape[1]) and y.shape[1] == (y_dim or x.shape[1]):
        return
    expected = "(N, D) and (M, D)" if x_dim is None else f"(N, {x_dim}) and (M, {y_dim})"
    remedy = "Give the critic the widths of the representations, or choose another encoder."
    for name, view in (("y", y), ("x", x)):
        if view.ndim < 2:
            remedy = f"For one feature per sample, write {name}.unsqueeze(1) or {name}[:, None]."
        elif view.ndim > 2:
            remedy = f"Write {name}.flatten(1), or give an encoder."
    raise ValueError(
        f"Got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: this critic takes {expected}. {remedy}"
    )


def check_widths(**widths: int) -> None:
    """Check that each argument is a whole number, at least 1."""
    for name, width in widths.items():
        check_whole(name, width, 1)
