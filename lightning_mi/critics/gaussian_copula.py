"""GaussianCopulaCritic: the log-ratio of a Gaussian in closed form, plus a neural residual."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from lightning_mi.critics.base import AbstractCritic, check_shapes, check_widths
from lightning_mi.encoders import MLP
from lightning_mi.scores.tiles import ProductTiles

_RIDGE = 1e-3  # added to the variances of standardized coordinates
_MAX_CORRELATION = 0.9999  # 4.3 nats for each canonical pair


@final
class GaussianCopulaCritic(AbstractCritic):
    r"""The log-ratio of a Gaussian, in closed form, plus a separable neural residual that starts at zero.

    .. math:: T(x, y) = \sum_k r(u_k, v_k; \rho_k) + g(x) \cdot h(y), \quad
        r(u, v; \rho) = -\tfrac{1}{2} \ln(1 - \rho^2) - \frac{\rho^2 (u^2 + v^2) - 2 \rho u v}{2 (1 - \rho^2)}

    with the canonical variables u and v of the first columns of x and y and their correlations :math:`\rho`, which
    :meth:`fit` computes. Before training, h is zero, so that the critic is that of the Gaussian: if x and y are
    standard normal in each coordinate, the critic of a Gaussian copula. Training adds the dependence that the Gaussian
    does not describe. Without :meth:`fit`, all correlations are 0.

    Args:
        x_dim: Dx.
        y_dim: Dy.
        hidden: Widths of the hidden layers of both networks.
        embed_dim: The dimension of the networks' outputs.
        gaussian_dims: Numbers of the first columns of x and of y that the Gaussian describes; all by default. Further
            columns are features for the networks alone.

    Raises:
        TypeError: A width is not a whole number.
        ValueError: A width is below 1, or the Gaussian has more columns than x or y; in use, x or y has another shape.

    Source: Hotelling 1936 (canonical correlations); Poole et al. 2019 (separable critic).

    Example:
        >>> x = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
        >>> y = 0.8 * x + 0.6 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(1))
        >>> critic = GaussianCopulaCritic(1, 1)
        >>> critic.fit(x[:1500], y[:1500], x[1500:], y[1500:])
        1
        >>> critic.paired(x, y).mean().item()  # -0.5 log(1 - 0.8^2) = 0.51 nats
        0.5...
    """

    x_mean: Tensor
    y_mean: Tensor
    x_directions: Tensor
    y_directions: Tensor
    correlations: Tensor

    def __init__(
        self,
        x_dim: int,
        y_dim: int,
        *,
        hidden: Sequence[int] = (64, 64),
        embed_dim: int = 16,
        gaussian_dims: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        check_widths(x_dim=x_dim, y_dim=y_dim, embed_dim=embed_dim)
        columns = (x_dim, y_dim) if gaussian_dims is None else gaussian_dims
        if columns[0] > x_dim or columns[1] > y_dim:
            raise ValueError(f"Got gaussian_dims={columns}: x has {x_dim} columns and y has {y_dim}.")
        self.x_dim, self.y_dim = x_dim, y_dim
        self.x_net = MLP(x_dim, hidden, out_dim=embed_dim).layers
        self.y_net = MLP(y_dim, hidden, out_dim=embed_dim).layers
        last = self.y_net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.register_buffer("x_mean", torch.zeros(columns[0]))
        self.register_buffer("y_mean", torch.zeros(columns[1]))
        self.register_buffer("x_directions", torch.zeros(columns[0], min(columns)))
        self.register_buffer("y_directions", torch.zeros(columns[1], min(columns)))
        self.register_buffer("correlations", torch.zeros(min(columns)))

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, x_held_out: Tensor, y_held_out: Tensor) -> int:
        """Compute the canonical variables, and drop those that do not predict other samples.

        A canonical pair is kept if its mean log-ratio on the held-out samples exceeds one standard error.

        Args:
            x: (N, Dx).
            y: (N, Dy).
            x_held_out: (H, Dx).
            y_held_out: (H, Dy).

        Returns:
            The number of canonical pairs that are kept.
        """
        if min(len(self.x_mean), len(self.y_mean)) == 0:
            return 0
        a, b = (view[:, : len(mean)].double() for view, mean in ((x, self.x_mean), (y, self.y_mean)))
        x_mean, y_mean = a.mean(0), b.mean(0)
        a, b = a - x_mean, b - y_mean
        x_whitening, y_whitening = _whitening(a), _whitening(b)
        left, correlations, right = torch.linalg.svd(x_whitening.T @ (a.T @ b / len(a)) @ y_whitening)
        num_pairs = len(correlations)
        correlations = correlations.clamp(max=_MAX_CORRELATION)
        x_directions, y_directions = x_whitening @ left[:, :num_pairs], y_whitening @ right.T[:, :num_pairs]
        u = (x_held_out[:, : len(x_mean)].double() - x_mean) @ x_directions
        v = (y_held_out[:, : len(y_mean)].double() - y_mean) @ y_directions
        gains = _log_ratio(u, v, correlations)
        kept = gains.mean(0) > gains.std(0) / len(gains) ** 0.5
        for buffer, value in (
            (self.x_mean, x_mean),
            (self.y_mean, y_mean),
            (self.x_directions, x_directions),
            (self.y_directions, y_directions),
            (self.correlations, correlations * kept),
        ):
            buffer.copy_(value)
        return int(kept.sum())

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        g, h = self._factors(x, y)
        return (g * h).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self.tiles(x, y).matrix()

    def tiles(self, x: Tensor, y: Tensor) -> ProductTiles:
        """Inner products: each term of the Gaussian is a product of a function of x and a function of y."""
        return ProductTiles(*self._factors(x, y))

    def _factors(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.x_net[0].weight
        assert isinstance(weight, Tensor)
        check_shapes(x, y, self.x_dim, self.y_dim, weight)
        rho = self.correlations
        u = (x[:, : len(self.x_mean)] - self.x_mean) @ self.x_directions
        v = (y[:, : len(self.y_mean)] - self.y_mean) @ self.y_directions
        noise = 1 - rho.square()
        curvature = rho.square() / (2 * noise)
        x_term = -(curvature * u.square()).sum(1, keepdim=True)
        y_term = -(curvature * v.square()).sum(1, keepdim=True) - 0.5 * noise.log().sum()
        g = torch.cat([self.x_net(x), u * (rho / noise), x_term, torch.ones_like(x_term)], dim=1)
        h = torch.cat([self.y_net(y), v, torch.ones_like(y_term), y_term], dim=1)
        return g, h


def _whitening(centered: Tensor) -> Tensor:
    """(D, D) matrix W with W^T S W = 1 for the covariance S of centered samples, with a ridge."""
    covariance = centered.T @ centered / len(centered)
    ridge = _RIDGE * torch.eye(len(covariance), dtype=covariance.dtype)
    factor: Tensor = torch.linalg.cholesky(covariance + ridge)
    inverse: Tensor = torch.linalg.inv(factor)
    return inverse.T


def _log_ratio(u: Tensor, v: Tensor, rho: Tensor) -> Tensor:
    """(N, K) log-ratio of each canonical pair, nats."""
    noise = 1 - rho.square()
    return -0.5 * noise.log() - (rho.square() * (u.square() + v.square()) - 2 * rho * u * v) / (2 * noise)
