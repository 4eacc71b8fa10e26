"""What every critic has in common: two ways to call it, and the check of what it is given."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from lightning_mi.tiles import AbstractTiles


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


def check_shapes(x: Tensor, y: Tensor, x_dim: int, y_dim: int) -> None:
    """Raise a ValueError unless x is (N, x_dim) and y (M, y_dim)."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != x_dim or y.shape[1] != y_dim:
        raise ValueError(
            f"Got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: this critic takes "
            f"(N, {x_dim}) and (M, {y_dim}). Flatten the representations, or choose a critic of their widths."
        )
