"""JointCritic: an MLP of the concatenated pair."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn
from torch.nn.functional import linear

from lightning_mi.critics.base import AbstractCritic, check_shapes, check_widths
from lightning_mi.critics.joint_tiles import NetworkTiles
from lightning_mi.critics.separable import SeparableCritic
from lightning_mi.encoders import MLP
from lightning_mi.scores.sum_tiles import SumTiles
from lightning_mi.scores.tiles import AbstractTiles


@final
class JointCritic(AbstractCritic):
    r"""MLP of the concatenated pair, T(x, y) = f([x, y]): the most expressive critic, with N x M forward passes.

    With ``separable_dim``, an inner product of two MLPs is added: :math:`T(x, y) = f([x, y]) + g(x) \cdot h(y)`. A
    product of x and y, as in the log-ratio of Gaussians, is then no longer left to f.

    The first layer is linear, so it is applied to x and to y, and the results are summed for each pair: the
    concatenations of all pairs are never in memory.

    Source: Poole et al. 2019; Choi and Lee 2022.

    Args:
        x_dim: Dx.
        y_dim: Dy.
        hidden: Widths of the hidden layers, at least one.
        output_bias: Whether the last layer of f has a bias, a constant that is added to every score.
        separable_dim: The dimension of g(x) and h(y), whose hidden layers have the widths of f; none by default.

    Raises:
        TypeError: A width is not a whole number.
        ValueError: There is no hidden layer, or a width is below 1; in use, x or y has another shape.

    Example:
        >>> import torch
        >>> critic = JointCritic(3, 2, hidden=(8,))
        >>> critic.pairwise(torch.zeros(4, 3), torch.zeros(5, 2)).shape
        torch.Size([4, 5])
    """

    def __init__(
        self,
        x_dim: int,
        y_dim: int,
        *,
        hidden: Sequence[int] = (256, 256),
        output_bias: bool = True,
        separable_dim: int | None = None,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError(
                "Got hidden=(): without a hidden layer a joint critic cannot relate x to y. Pass hidden=(256, 256)."
            )
        check_widths(x_dim=x_dim, y_dim=y_dim)
        if separable_dim is not None:
            check_widths(separable_dim=separable_dim)
        self.x_dim, self.y_dim = x_dim, y_dim
        # One layer over both widths, so that it is initialized as a layer over the concatenation.
        self.first = nn.Linear(x_dim + y_dim, hidden[0])
        # The first ReLU is not in place: its input is a view, and autograd copies views that are overwritten.
        rest = MLP(hidden[0], hidden[1:], out_dim=1, bias=output_bias)
        self.rest = nn.Sequential(nn.ReLU(), *rest.layers)
        self.separable = (
            None if separable_dim is None else SeparableCritic(x_dim, y_dim, hidden=hidden, embed_dim=separable_dim)
        )

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        hx, hy = self._first(x, y)
        scores: Tensor = self.rest(hx + hy).squeeze(-1)
        return scores if self.separable is None else scores + self.separable.paired(x, y)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self.tiles(x, y).matrix()

    def tiles(self, x: Tensor, y: Tensor) -> AbstractTiles:
        """Both halves of the first layer, and the rest of the network; plus the separable term."""
        tiles = NetworkTiles(*self._first(x, y), self.rest)
        return tiles if self.separable is None else SumTiles(tiles, self.separable.tiles(x, y))

    def _first(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.first.weight
        check_shapes(x, y, self.x_dim, self.y_dim, weight)
        return linear(x, weight[:, : self.x_dim], self.first.bias), linear(y, weight[:, self.x_dim :])
