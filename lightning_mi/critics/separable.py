"""Critics that are networks of x and y: perceptrons of the pair, or of each alone."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from lightning_mi.critics.base import AbstractCritic, check_shapes
from lightning_mi.critics.mlp import _check_widths, mlp
from lightning_mi.scores.tiles import Products


@final
class SeparableCritic(AbstractCritic):
    """The inner product of two perceptrons, g(x) . h(y): all pairs at the price of one matrix product.

    Source: Poole et al. 2019.

    Args:
        x_dim: Dx.
        y_dim: Dy.
        hidden: Widths of the hidden layers of both perceptrons.
        embed_dim: The dimension of g(x) and h(y).

    Raises:
        ValueError: x or y has another shape.

    Example:
        >>> import torch
        >>> critic = SeparableCritic(3, 2, hidden=(8,), embed_dim=4)
        >>> critic.pairwise(torch.zeros(4, 3), torch.zeros(5, 2)).shape
        torch.Size([4, 5])
    """

    def __init__(self, x_dim: int, y_dim: int, hidden: Sequence[int] = (256, 256), embed_dim: int = 32) -> None:
        super().__init__()
        _check_widths(x_dim=x_dim, y_dim=y_dim, embed_dim=embed_dim)
        self.x_dim, self.y_dim = x_dim, y_dim
        self.x_net = mlp(x_dim, hidden, embed_dim)
        self.y_net = mlp(y_dim, hidden, embed_dim)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        g, h = self._embed(x, y)
        return (g * h).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self.tiles(x, y).matrix()

    def tiles(self, x: Tensor, y: Tensor) -> Products:
        """g(x) and h(y)."""
        return Products(*self._embed(x, y))

    def _embed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        check_shapes(x, y, self.x_dim, self.y_dim, _first_weight(self.x_net))
        return self.x_net(x), self.y_net(y)


def _first_weight(network: nn.Module) -> Tensor | None:
    """The weight of the first layer; of a network that is no sequence of layers, its first parameter, if any."""
    first = network[0] if isinstance(network, nn.Sequential) and len(network) else network
    weight = getattr(first, "weight", None)
    return weight if isinstance(weight, Tensor) else next(network.parameters(), None)
