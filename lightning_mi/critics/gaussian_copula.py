"""GaussianCopulaCritic: the log-ratio of a Gaussian in closed form, plus a residual critic."""

from collections.abc import Sequence
from typing import NamedTuple, Self, final

import torch
from torch import Tensor, nn

from lightning_mi.critics.base import AbstractCritic, check_shapes, check_widths
from lightning_mi.critics.separable import SeparableCritic
from lightning_mi.scores.scores import Scores
from lightning_mi.scores.sum_tiles import SumTiles
from lightning_mi.scores.tiles import AbstractTiles, ProductTiles
from lightning_mi.utilities.checks import check_instance, check_whole

_RIDGE = 1e-3  # added to the variances of standardized coordinates
_MAX_SAMPLES = 2048  # whose marginal pairs are scored
_MAX_CORRELATION = 0.9999  # 4.3 nats for each canonical pair


@final
class GaussianCopulaCritic(AbstractCritic):
    r"""The log-ratio of a Gaussian, in closed form, plus a residual critic that starts at zero.

    .. math:: T(x, y) = \sum_k r(u_k, v_k; \rho_k) + f(x, y), \quad
        r(u, v; \rho) = -\tfrac{1}{2} \ln(1 - \rho^2) - \frac{\rho^2 (u^2 + v^2) - 2 \rho u v}{2 (1 - \rho^2)}

    with the canonical variables u and v of the first columns of x and y and their correlations :math:`\rho`, which
    :meth:`fit` computes, and the residual f. The last linear layer of the residual is set to zero, so that the critic
    starts as that of the Gaussian: if x and y are standard normal in each coordinate, the critic of a Gaussian copula.
    Training adds the dependence that the Gaussian does not describe. Without :meth:`fit`, all correlations are 0.

    Args:
        x_dim: Dx.
        y_dim: Dy.
        residual: f; by default a small separable critic.
        gaussian_dims: Numbers of the first columns of x and of y that the Gaussian may describe; all by default.
            Further columns are features for the residual alone.
        hidden_dims: Numbers of the first columns of x and of y that the residual does not see; none by default.
        canonical_dims: If given, the residual sees this many canonical variables of x and of y, with the highest
            correlations, instead of columns. Variables that :meth:`fit` does not keep are 0.

    Raises:
        TypeError: A width is not a whole number, or the residual is no critic.
        ValueError: A width is below 1, the residual has no linear layer, or the Gaussian has more columns than x or y;
            in use, x or y has another shape.

    Source: Hotelling 1936 (canonical correlations); Poole et al. 2019 (separable critic).

    Example:
        >>> x = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
        >>> y = 0.8 * x + 0.6 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(1))
        >>> critic = GaussianCopulaCritic(1, 1)
        >>> critic.fit((x[:1500], y[:1500]), (x[1500:], y[1500:]))
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
        residual: AbstractCritic | None = None,
        gaussian_dims: tuple[int, int] | None = None,
        hidden_dims: tuple[int, int] = (0, 0),
        canonical_dims: int | None = None,
    ) -> None:
        super().__init__()
        check_widths(x_dim=x_dim, y_dim=y_dim)
        columns = (x_dim, y_dim) if gaussian_dims is None else gaussian_dims
        if columns[0] > x_dim or columns[1] > y_dim:
            raise ValueError(f"Got gaussian_dims={columns}: x has {x_dim} columns and y has {y_dim}.")
        self.x_dim, self.y_dim, self._hidden_dims = x_dim, y_dim, hidden_dims
        seen = x_dim - hidden_dims[0], y_dim - hidden_dims[1]
        if canonical_dims is not None:
            check_whole("canonical_dims", canonical_dims, 1)
            if canonical_dims > min(columns):
                raise ValueError(
                    f"Got canonical_dims={canonical_dims}: a Gaussian of {columns[0]} and {columns[1]} columns has "
                    f"{min(columns)} canonical variables."
                )
            seen = canonical_dims, canonical_dims
        self._canonical_dims = canonical_dims
        self.residual = SeparableCritic(*seen, hidden=(64, 64), embed_dim=16) if residual is None else residual
        check_instance("residual", self.residual, AbstractCritic, "critics.SeparableCritic(x_dim, y_dim)")
        _start_at_zero(self.residual)
        self.register_buffer("x_mean", torch.zeros(columns[0]))
        self.register_buffer("y_mean", torch.zeros(columns[1]))
        self.register_buffer("x_directions", torch.zeros(columns[0], min(columns)))
        self.register_buffer("y_directions", torch.zeros(columns[1], min(columns)))
        self.register_buffer("correlations", torch.zeros(min(columns)))

    @torch.no_grad()
    def fit(
        self,
        samples: tuple[Tensor, Tensor],
        held_out: tuple[Tensor, Tensor],
        choices: Sequence[tuple[slice, slice]] | None = None,
    ) -> int:
        """Compute the canonical variables, and drop those that do not predict other samples.

        A canonical pair is kept if its mean log-ratio on the held-out samples exceeds one standard error.

        Args:
            samples: (N, Dx) and (N, Dy).
            held_out: (H, Dx) and (H, Dy).
            choices: Columns of x and of y to describe, by default all that the Gaussian may. A later choice replaces an
                earlier one if its Donsker-Varadhan value is two standard errors higher: the mean score of held-out
                joint pairs minus the log-normalizer over the marginal pairs of up to 2048 samples.

        Returns:
            The number of canonical pairs that are kept.
        """
        chosen: _Canonical | None = None
        best = torch.empty(0)
        widths = len(self.x_mean), len(self.y_mean)
        if min(widths) == 0:
            return 0
        for columns in choices or [(slice(widths[0]), slice(widths[1]))]:
            candidate = _Canonical.of(samples, held_out, columns).place(columns, widths)
            marginal = Scores.from_matrix(candidate.tiles(*(view[:_MAX_SAMPLES] for view in samples)).matrix())
            values = candidate.paired(*held_out) - marginal.log_mean_exp()
            if chosen is None or _exceeds(values - best, 2.0):
                chosen, best = candidate, values
        assert chosen is not None
        for name, value in chosen._asdict().items():
            self.get_buffer(name).copy_(value)
        return int((chosen.correlations > 0).sum())

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        g, h = self._factors(x, y)
        return (g * h).sum(-1) + self.residual.paired(*self._seen(x, y))

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        tiles = self.tiles(x, y)
        if tiles is not None:
            return tiles.matrix()
        residual = self.residual.pairwise(*self._seen(x, y))  # first: it checks device and dtype
        g, h = self._factors(x, y)
        return g @ h.T + residual

    def tiles(self, x: Tensor, y: Tensor) -> AbstractTiles | None:
        """The residual's tiles, if it has any, and those of the Gaussian, a product of functions of x and y."""
        residual = self.residual.tiles(*self._seen(x, y))
        if residual is None:
            return None
        factors = self._factors(x, y)
        if isinstance(residual, ProductTiles):
            return _join(factors, residual)
        return SumTiles(residual, ProductTiles(*factors))

    def _seen(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self._canonical_dims is None:
            return x[:, self._hidden_dims[0] :], y[:, self._hidden_dims[1] :]
        check_shapes(x, y, self.x_dim, self.y_dim)
        canonical = self._canonical()
        kept = canonical.correlations[: self._canonical_dims] > 0
        u, v = (variables[:, : self._canonical_dims] * kept for variables in canonical.variables(x, y))
        return u, v

    def _factors(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        check_shapes(x, y, self.x_dim, self.y_dim)
        return self._canonical().factors(x, y)

    def _canonical(self) -> "_Canonical":
        return _Canonical(*(self.get_buffer(name) for name in _Canonical._fields))


class _Canonical(NamedTuple):
    """Canonical variables of first columns of x and y."""

    x_mean: Tensor
    y_mean: Tensor
    x_directions: Tensor
    y_directions: Tensor
    correlations: Tensor

    @classmethod
    def of(cls, samples: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], columns: tuple[slice, slice]) -> Self:
        """Those of the samples, with correlation 0 for those that do not predict held-out samples."""
        a, b = (view[:, own].double() for view, own in zip(samples, columns, strict=True))
        means = a.mean(0), b.mean(0)
        a, b = a - means[0], b - means[1]
        x_whitening, y_whitening = _whitening(a), _whitening(b)
        left, correlations, right = torch.linalg.svd(x_whitening.T @ (a.T @ b / len(a)) @ y_whitening)
        num_pairs = len(correlations)
        correlations = correlations.clamp(max=_MAX_CORRELATION)
        x_directions, y_directions = x_whitening @ left[:, :num_pairs], y_whitening @ right.T[:, :num_pairs]
        u, v = (
            (view[:, own].double() - mean) @ directions
            for view, own, mean, directions in zip(held_out, columns, means, (x_directions, y_directions), strict=True)
        )
        gains = _log_ratio(u, v, correlations)
        kept = _exceeds(gains, 1.0)
        return cls(*(t.float() for t in (*means, x_directions, y_directions, correlations * kept)))

    def place(self, columns: tuple[slice, slice], widths: tuple[int, int]) -> Self:
        """The same with directions for all columns, 0 for others."""
        num_pairs = min(widths)
        directions = [torch.zeros(width, num_pairs) for width in widths]
        means = [torch.zeros(width) for width in widths]
        own = ((self.x_mean, self.x_directions), (self.y_mean, self.y_directions))
        for direction, mean, (own_mean, own_direction), rows in zip(directions, means, own, columns, strict=True):
            mean[rows], direction[rows, : len(self.correlations)] = own_mean, own_direction
        correlations = torch.zeros(num_pairs)
        correlations[: len(self.correlations)] = self.correlations
        return self._replace(
            x_mean=means[0],
            y_mean=means[1],
            x_directions=directions[0],
            y_directions=directions[1],
            correlations=correlations,
        )

    def variables(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) and (M, K) canonical variables."""
        u = (x[:, : len(self.x_mean)] - self.x_mean) @ self.x_directions
        v = (y[:, : len(self.y_mean)] - self.y_mean) @ self.y_directions
        return u, v

    def factors(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K + 2) and (M, K + 2), whose inner products are the log-ratios."""
        rho = self.correlations
        u, v = self.variables(x, y)
        noise = 1 - rho.square()
        curvature = rho.square() / (2 * noise)
        x_term = -(curvature * u.square()).sum(1, keepdim=True)
        y_term = -(curvature * v.square()).sum(1, keepdim=True) - 0.5 * noise.log().sum()
        ones = torch.ones_like(x_term), torch.ones_like(y_term)
        return torch.cat([u * (rho / noise), x_term, ones[0]], dim=1), torch.cat([v, ones[1], y_term], dim=1)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) the log-ratios of matching rows."""
        g, h = self.factors(x, y)
        return (g * h).sum(-1)

    def tiles(self, x: Tensor, y: Tensor) -> ProductTiles:
        """The log-ratios of all pairs."""
        return ProductTiles(*self.factors(x, y))


def _join(factors: tuple[Tensor, Tensor], residual: ProductTiles) -> ProductTiles:
    """The sum of two inner products as one."""
    return ProductTiles(*(torch.cat(pair, dim=1) for pair in zip(factors, residual.inputs, strict=True)))


def _start_at_zero(critic: AbstractCritic) -> None:
    """Set the last linear layer to zero."""
    layers = [module for module in critic.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError(
            f"Got a {type(critic).__name__} as residual: it has no linear layer that could start at zero. Use a "
            "SeparableCritic or a JointCritic."
        )
    for parameter in layers[-1].parameters():
        nn.init.zeros_(parameter)


def _exceeds(gains: Tensor, standard_errors: float) -> Tensor:
    """Whether the mean over the first dimension is more than some standard errors above 0."""
    exceeds: Tensor = gains.mean(0) > standard_errors * gains.std(0) / len(gains) ** 0.5
    return exceeds


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
