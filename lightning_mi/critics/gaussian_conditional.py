"""GaussianConditional: the log-density of y given x as a score."""

import math
from collections.abc import Sequence
from typing import ClassVar, Self, final

import torch
from torch import Tensor, nn

from lightning_mi.critics.base import AbstractCritic
from lightning_mi.critics.diagonal_gaussian import DiagonalGaussian
from lightning_mi.critics.gaussian_tiles import GaussianTiles
from lightning_mi.utilities.checks import check_finite, check_instance
from lightning_mi.utilities.numerics import clip_smoothly, upcast
from lightning_mi.utilities.view_checks import check_views


@final
class GaussianConditional(AbstractCritic):
    r"""A normal density with independent coordinates, :math:`T(x, y) = \log q(y | x)`; a network gives its parameters.

    The scores are log-densities. The bounds BA, CLUB, CLUBSample and L1Out need them; with InfoNCE they give the lower
    bound of a known conditional. An offset would make them wrong, so do not wrap it in a CalibratedCritic.

    The log-variance equals the network's output inside the range. Outside, it continues to one nat beyond the range
    with a slope that never vanishes (:func:`~lightning_mi.utilities.numerics.clip_smoothly`), so that training can
    bring it back. Sums are float32 or wider, also under autocast.

    Source: Barber and Agakov 2003; Cheng et al. 2020.

    Args:
        network: Maps x to (N, 2 D): the mean of y, then its log-variance. x has any shape that the network takes; with
            ``nn.Embedding(C, 2 * D)`` it is a label.
        log_variance_range: The lowest and the highest log-variance.

    Raises:
        TypeError: The network is not a module; in use, y is not a tensor of floating-point numbers.
        ValueError: The range is empty or not finite; in use, y or the network's output has a wrong shape.

    Example:
        >>> from lightning_mi.encoders import MLP
        >>> critic = GaussianConditional(MLP(3, [8], out_dim=2 * 5))
        >>> critic.pairwise(torch.zeros(4, 3), torch.zeros(6, 5)).shape
        torch.Size([4, 6])
        >>> critic.given(torch.zeros(4, 3)).sample().shape
        torch.Size([4, 5])
    """

    is_log_density: ClassVar[bool] = True

    def __init__(self, network: nn.Module, *, log_variance_range: tuple[float, float] = (-10.0, 10.0)) -> None:
        super().__init__()
        check_instance("network", network, nn.Module, "encoders.MLP(x_dim, (256, 256), out_dim=2 * y_dim)")
        low, high = log_variance_range
        for limit in (low, high):
            check_finite("log_variance_range", limit, "the lowest and the highest log-variance")
        if not low < high:
            raise ValueError(f"Got log_variance_range=({low}, {high}): the first number is the lower one.")
        self.network = network
        self.log_variance_range = (float(low), float(high))

    @classmethod
    def linear(cls, weight: Tensor, variance: Tensor | Sequence[float] | float, bias: Tensor | None = None) -> Self:
        r"""The known density :math:`y \sim N(W x + b, \mathrm{diag}(v))`, without trainable parameters.

        Args:
            weight: W, (Dy, Dx).
            variance: v, (Dy,) or one number for all coordinates; positive.
            bias: b, (Dy,); 0 by default.

        Raises:
            ValueError: A variance is not positive, or shapes do not fit.

        Example:
            >>> rho = 0.6  # y = rho x + sqrt(1 - rho^2) noise
            >>> critic = GaussianConditional.linear(rho * torch.eye(2), 1 - rho**2)
            >>> critic.given(torch.ones(1, 2)).mean
            tensor([[0.6000, 0.6000]])
        """
        dim = len(weight)
        variances = torch.as_tensor(variance, dtype=weight.dtype).expand(dim)
        if not bool((variances > 0).all()) or not bool(variances.isfinite().all()):
            raise ValueError(f"Got variance={variances.tolist()}: variances are positive and finite.")
        layer = nn.Linear(weight.shape[1], 2 * dim, dtype=weight.dtype).requires_grad_(False)
        layer.weight.copy_(torch.cat([weight, torch.zeros_like(weight)]))
        layer.bias.copy_(torch.cat([weight.new_zeros(dim) if bias is None else bias, variances.log()]))
        log_variances = variances.log()
        limits = min(-10.0, math.floor(log_variances.min())), max(10.0, math.ceil(log_variances.max()))
        return cls(layer, log_variance_range=limits)

    def given(self, x: Tensor) -> DiagonalGaussian:
        """The N densities of y given x, (N, ...)."""
        try:
            output = upcast(self.network(x))
        except IndexError as error:  # of an embedding
            raise ValueError(
                f"The network of GaussianConditional failed: {error}. Labels run from 0 to C - 1: give nn.Embedding a "
                "row for each."
            ) from error
        if output.ndim != 2 or output.shape[1] % 2:
            raise ValueError(
                f"Got an output of shape {tuple(output.shape)} from the network of GaussianConditional: it has 2 D "
                "columns, the mean of y and its log-variance. Set the network's width to twice that of y."
            )
        mean, log_variance = output.chunk(2, dim=1)
        return DiagonalGaussian(mean, clip_smoothly(log_variance, *self.log_variance_range))

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) log-densities of matching rows of x (N, ...) and y (N, D), nats."""
        density, y = self._prepare(x, y)
        return density.log_prob(y)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) log-densities of every row of y (M, D) given every row of x (N, ...), nats."""
        return self.tiles(x, y).matrix()

    def tiles(self, x: Tensor, y: Tensor) -> GaussianTiles:
        """The log-densities in tiles."""
        return GaussianTiles(*self._prepare(x, y))

    def _prepare(self, x: Tensor, y: Tensor) -> tuple[DiagonalGaussian, Tensor]:
        views = {"x": x, "y": y} if x.is_floating_point() else {"y": y}
        weight = next(self.network.parameters(), None)
        check_views(views, weight)
        density = self.given(x)
        if y.ndim != 2 or y.shape[1] != density.mean.shape[1]:
            raise ValueError(
                f"Got y of shape {tuple(y.shape)} and a network with {2 * density.mean.shape[1]} outputs: log q(y | x) "
                f"takes y of shape (M, {density.mean.shape[1]}). Set the network's width to twice that of y."
            )
        return density, y.to(density.mean.dtype)
