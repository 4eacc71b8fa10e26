"""Mixtures of bivariate Gaussians, with the MI by numerical integration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.data.laws._arguments import check_covariance, check_law, matrix_tuple, vector_tuple
from lightning_mi.data.laws.base import AbstractLaw

_REACH = 9.0  # standard deviations beyond the outermost means: the mass outside is 1e-18
_TOLERANCE = 1e-9  # nats between two grids, the finer with half the spacing
_MAX_POINTS = 5000  # of a grid along one axis
_CHUNK = 2**18  # points that are evaluated at a time


class _Components(NamedTuple):
    """K bivariate Gaussians in float64."""

    log_weights: Tensor  # (K,)
    means: Tensor  # (K, 2)
    sds: Tensor  # (K, 2) of x and of y
    slopes: Tensor  # (K,) of the regression of y on x
    residual_sds: Tensor  # (K,) of y given x


@final
@dataclass(frozen=True)
class GaussianMixture(AbstractLaw):
    r"""A mixture of K bivariate Gaussians: x and y have one dimension each.

    The MI has no closed form. It is the integral of :math:`p(x, y) \ln \frac{p(x, y)}{p(x) p(y)}` by the trapezoidal
    rule on a grid that reaches 9 standard deviations beyond the outermost means. The spacing is halved until the
    integral changes by less than 1e-9 nats. This bounds the error, because the rule converges exponentially for
    analytic functions.

    Samples are x (n, 1) and y (n, 1). For more dimensions, concatenate laws and map them by a rotation of x or of y.

    Args:
        weights: K probabilities.
        means: K means (x, y).
        covariances: K covariances [[xx, xy], [xy, yy]].

    Raises:
        TypeError: If an entry is not a number.
        ValueError: If the weights are not probabilities, a matrix is not a covariance, or lengths differ; at
            ``true_mi``, if components are too narrow for a grid.

    Source: Trefethen and Weideman 2014 (trapezoidal rule).

    Example:
        >>> quadrants = GaussianMixture([0.5, 0.5], [[-9, -9], [9, 9]], [[[1, 0], [0, 1]], [[1, 0], [0, 1]]])
        >>> quadrants.true_mi  # log 2
        0.6931
    """

    weights: Sequence[float]
    means: Sequence[Sequence[float]]
    covariances: Sequence[Sequence[Sequence[float]]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", vector_tuple("weights", self.weights))
        check_law("weights", self.weights)
        object.__setattr__(self, "means", matrix_tuple("means", self.means))
        covariances = tuple(matrix_tuple("a covariance", matrix) for matrix in self.covariances)
        object.__setattr__(self, "covariances", covariances)
        if not len(self.weights) == len(self.means) == len(covariances):
            raise ValueError(
                f"Got {len(self.weights)} weights, {len(self.means)} means and {len(covariances)} covariances: each "
                "component has one of each."
            )
        for matrix in covariances:
            check_covariance("covariance", matrix)
        if len(self.means[0]) != 2 or any(len(matrix) != 2 for matrix in covariances):
            raise ValueError("Got components of another dimension than 2: x and y of a mixture are numbers.")

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats, with an error of 1e-9."""
        return self._mi

    def describe(self) -> str:
        """One line of plain text."""
        return f"mixture of {len(self.weights)} bivariate Gaussians"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weights = torch.tensor(self.weights, dtype=torch.float64)
        component = torch.multinomial(weights, n, replacement=True, generator=generator)
        parts = self._components
        noise_x, noise_y = torch.randn(2, n, generator=generator, dtype=torch.float64)
        x = parts.sds[component, 0] * noise_x
        y = parts.slopes[component] * x + parts.residual_sds[component] * noise_y
        means = parts.means[component]
        return (means[:, 0] + x).unsqueeze(1), (means[:, 1] + y).unsqueeze(1)

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = x.double(), y.double()
        return self._log_joint(x, y) - self._log_marginal(x, 0) - self._log_marginal(y, 1)

    def _log_ratio_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = x.double(), y.double()
        joint = self._log_joint(x.unsqueeze(1), y.unsqueeze(0))
        return joint - self._log_marginal(x, 0).unsqueeze(1) - self._log_marginal(y, 1)

    def _log_joint(self, x: Tensor, y: Tensor) -> Tensor:
        """Log density of x (..., 1) and y (..., 1), with their common shape (...)."""
        parts = self._components_on(x.device)
        centered = x - parts.means[:, 0]
        residual = y - parts.means[:, 1] - parts.slopes * centered
        log_density = _log_normal(centered, parts.sds[:, 0]) + _log_normal(residual, parts.residual_sds)
        return torch.logsumexp(parts.log_weights + log_density, dim=-1)

    def _log_marginal(self, value: Tensor, side: int) -> Tensor:
        """(N,) log density of x (side 0) or of y (side 1), (N, 1)."""
        parts = self._components_on(value.device)
        log_density = _log_normal(value - parts.means[:, side], parts.sds[:, side])
        return torch.logsumexp(parts.log_weights + log_density, dim=-1)

    def _components_on(self, device: torch.device) -> _Components:
        return _Components(*(part.to(device) for part in self._components))

    @cached_property
    def _components(self) -> _Components:
        covariances = torch.tensor(self.covariances, dtype=torch.float64)
        sds = covariances.diagonal(dim1=1, dim2=2).sqrt()
        slopes = covariances[:, 0, 1] / covariances[:, 0, 0]
        return _Components(
            log_weights=torch.tensor(self.weights, dtype=torch.float64).log(),
            means=torch.tensor(self.means, dtype=torch.float64),
            sds=sds,
            slopes=slopes,
            residual_sds=(covariances[:, 1, 1] - slopes * covariances[:, 0, 1]).sqrt(),
        )

    @cached_property
    def _mi(self) -> float:
        parts = self._components
        low = (parts.means - _REACH * parts.sds).amin(0)
        high = (parts.means + _REACH * parts.sds).amax(0)
        # The narrowest direction of a component, which the first grid resolves with half a standard deviation.
        narrowest = float(torch.linalg.eigvalsh(torch.tensor(self.covariances, dtype=torch.float64)).min().sqrt())
        points = [math.ceil(float(length) / (0.5 * narrowest)) + 1 for length in high - low]
        previous = math.nan
        while max(points) <= _MAX_POINTS:
            value = self._integral(
                *(
                    torch.linspace(*ends, dtype=torch.float64)
                    for ends in zip(low.tolist(), high.tolist(), points, strict=True)
                )
            )
            if abs(value - previous) < _TOLERANCE:
                return max(value, 0.0)
            previous, points = value, [2 * count - 1 for count in points]
        raise ValueError(
            f"The MI of this mixture needs a grid of more than {_MAX_POINTS} points a side: a component is too narrow, "
            "or too strongly correlated, for its distance from the others."
        )

    def _integral(self, x: Tensor, y: Tensor) -> float:
        """The trapezoidal rule on a grid, whose boundary terms are negligible."""
        log_y = self._log_marginal(y.unsqueeze(1), 1)
        total = 0.0
        for rows in torch.split(x.unsqueeze(1), max(1, _CHUNK // len(y))):
            joint = self._log_joint(rows.unsqueeze(1), y.unsqueeze(1))
            ratio = joint - self._log_marginal(rows, 0).unsqueeze(1) - log_y
            total += float((joint.exp() * ratio).sum())
        return total * float(x[1] - x[0]) * float(y[1] - y[0])


def _log_normal(deviation: Tensor, sd: Tensor) -> Tensor:
    return -0.5 * (deviation / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)
