"""NormalScores: a map of each column to a standard normal marginal."""

from typing import cast, final

import torch
from torch import Tensor, nn

from lightning_mi.utilities.checks import check_whole
from lightning_mi.utilities.distributed import broadcast_
from lightning_mi.utilities.numerics import upcast

_QUANTILES = 64


@final
class NormalScores(nn.Module):
    r"""Maps each column to the standard normal quantiles of its ranks: MI stays the same, a critic learns it sooner.

    MI does not change under injective maps of x or of y, but a critic has to undo them: heavy tails, or the cube of a
    variable. This increasing map is linear between 64 quantiles of a reference sample, and beyond the outer ones it
    grows with the logarithm. The reference sample is the first training batch, with several ranks that of rank 0,
    unless :meth:`fit` has been called. Before that the map is nearly the identity. It has no parameters.

    Args:
        dim: D, the number of columns.

    Raises:
        TypeError: ``dim`` is not a whole number.
        ValueError: ``dim`` is below 1; in use, the input has another shape.

    Source: Waerden 1952 (normal scores).

    Example:
        >>> y = torch.randn(256, 1).sort(dim=0).values
        >>> scores = NormalScores(1)(y**3)
        >>> bool((scores.diff(dim=0) > 0).all()), bool((scores - y).abs().mean() < 0.2)
        (True, True)
    """

    quantiles: Tensor
    fitted: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        check_whole("dim", dim, 1)
        self.dim = dim
        self.register_buffer("quantiles", _normal_quantiles().repeat(dim, 1))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, reference: Tensor) -> None:
        """Map new inputs to their ranks among a reference sample (n, D)."""
        self._check(reference)
        ordered = reference.sort(dim=0).values
        self.quantiles.copy_(ordered[(_levels() * len(ordered)).long()].mT)
        broadcast_([self.quantiles])
        self.fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) normal scores of (N, D)."""
        self._check(x)
        if self.training and not self.fitted:
            self.fit(x.detach())
        columns = upcast(x).mT.contiguous()
        # Ties have the mean score of their ranks.
        scores = (self._interpolate(columns, right=False) + self._interpolate(columns, right=True)) / 2
        return scores.mT.to(x.dtype)

    def _interpolate(self, columns: Tensor, *, right: bool) -> Tensor:
        """(D, N) scores of (D, N), by the interval on the left or right of an input that is a quantile."""
        last = self.quantiles.shape[1] - 1
        normal = _normal_quantiles().to(columns)
        upper = torch.searchsorted(self.quantiles, columns.detach(), right=right).clamp(1, last)
        left, width = self.quantiles.gather(1, upper - 1), self.quantiles.diff(dim=1).gather(1, upper - 1)
        inside = columns.clamp(self.quantiles[:, :1], self.quantiles[:, -1:])
        fraction = ((inside - left) / width).where(width > 0, float(right))
        scores = torch.lerp(normal[upper - 1], normal[upper], fraction)
        spread = (self.quantiles[:, -1:] - self.quantiles[:, :1]) / (normal[-1] - normal[0])
        excess = (columns - inside) / spread.where(spread > 0, 1.0)
        return scores + excess.sign() * excess.abs().log1p()

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(
                f"Got an input of shape {tuple(x.shape)}: NormalScores({self.dim}) maps (N, {self.dim}). Flatten the "
                "input, or set dim."
            )

    def extra_repr(self) -> str:
        """The argument, for ``print(module)``."""
        return f"dim={self.dim}"


def _levels() -> Tensor:
    return (torch.arange(_QUANTILES) + 0.5) / _QUANTILES


def _normal_quantiles() -> Tensor:
    return cast("Tensor", torch.special.ndtri(_levels()))
