"""SeparableCritic: the inner product of two MLPs."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from lightning_mi.critics.base import AbstractCritic, check_shapes, check_widths
from lightning_mi.encoders import MLP
from lightning_mi.scores.tiles import ProductTiles


@final
class SeparableCritic(AbstractCritic):
    r"""Inner product of two MLPs, :math:`T(x, y) = g(x) \cdot h(y)`: all pairs for one matrix product.

    Source: Poole et al. 2019.

    Args:
        x_dim: Dx.
        y_dim: Dy.
        hidden: Widths of the hidden layers of both MLPs.
        embed_dim: The dimension of g(x) and h(y).

    Raises:
        TypeError: A width is not a whole number.
        ValueError: A width is below 1; in use, x or y has another shape.

    Example:
        >>> import torch
        >>> critic = SeparableCritic(3, 2, hidden=(8,), embed_dim=4)
        >>> critic.pairwise(torch.zeros(4, 3), torch.zeros(5, 2)).shape
        torch.Size([4, 5])
    """

    def __init__(self, x_dim: int, y_dim: int, *, hidden: Sequence[int] = (256, 256), embed_dim: int = 32) -> None:
        super().__init__()
        check_widths(x_dim=x_dim, y_dim=y_dim, embed_dim=embed_dim)
        self.x_dim, self.y_dim = x_dim, y_dim
        self.x_net = MLP(x_dim, hidden, out_dim=embed_dim).layers
        self.y_net = MLP(y_dim, hidden, out_dim=embed_dim).layers

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        g, h = self._embed(x, y)
        return (g * h).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self.tiles(x, y).matrix()

    def tiles(self, x: Tensor, y: Tensor) -> ProductTiles:
        """Inner products of g(x) and h(y)."""
        return ProductTiles(*self._embed(x, y))

    def _embed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        check_shapes(x, y, self.x_dim, self.y_dim, _first_weight(self.x_net))
        return self.x_net(x), self.y_net(y)


def _first_weight(network: nn.Module) -> Tensor | None:
    """Weight of the first layer of a sequence; of any other network, its first parameter, if any."""
    first = network[0] if isinstance(network, nn.Sequential) and len(network) else network
    weight = getattr(first, "weight", None)
    return weight if isinstance(weight, Tensor) else next(network.parameters(), None)
