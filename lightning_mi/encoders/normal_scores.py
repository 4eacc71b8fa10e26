"""NormalScores: a map of each column to a standard normal marginal."""

from typing import Any, cast, final

import torch
from torch import Tensor, nn

from lightning_mi.utilities.checks import check_whole
from lightning_mi.utilities.distributed import all_reduce_mean_
from lightning_mi.utilities.numerics import upcast

_QUANTILES = 64
_BATCHES = 64


@final
class NormalScores(nn.Module):
    r"""Maps each column to the standard normal quantiles of its ranks: MI stays the same, a critic learns it sooner.

    MI does not change under injective maps of x or of y, but a critic has to undo them: heavy tails, or the cube of a
    variable. This increasing map is linear between 64 quantiles, and beyond the outer ones it grows with the logarithm.
    The quantiles are means over the first 64 training batches of all ranks, and constant from then on; or those of a
    sample, by :meth:`fit`. Before the first batch, the map is the identity between -2.4 and 2.4. There are no
    parameters.

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
    num_batches: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        check_whole("dim", dim, 1)
        self.dim = dim
        self.register_buffer("quantiles", _normal_quantiles().repeat(dim, 1))
        self.register_buffer("num_batches", torch.tensor(0))
        self._complete = False  # a host-side flag: no host-device sync in each later step
        self.register_load_state_dict_post_hook(_reset)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def fit(self, reference: Tensor) -> None:
        """Map to the ranks among a reference sample (n, D), the same on every rank, from now on."""
        self._check(reference)
        self.quantiles.copy_(_quantiles(reference))
        self.num_batches.fill_(_BATCHES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) normal scores of (N, D)."""
        self._check(x)
        if self.training and not self._complete:
            self._update(x)
        columns = upcast(x).mT.contiguous()
        # Ties have the mean score of their ranks.
        scores = (self._interpolate(columns, right=False) + self._interpolate(columns, right=True)) / 2
        return scores.mT.to(x.dtype) if x.is_floating_point() else scores.mT

    @torch.no_grad()
    def _update(self, x: Tensor) -> None:
        self._complete = bool(self.num_batches >= _BATCHES)
        if not self._complete:
            self.num_batches += 1
            self.quantiles.lerp_(all_reduce_mean_(_quantiles(x)).to(self.quantiles), 1 / self.num_batches)

    def _interpolate(self, columns: Tensor, *, right: bool) -> Tensor:
        """(D, N) scores of (D, N), by the interval on the left or right of an input that is a quantile."""
        quantiles, normal = self.quantiles.to(columns), _normal_quantiles().to(columns)
        upper = torch.searchsorted(quantiles, columns.detach(), right=right).clamp(1, _QUANTILES - 1)
        left, width = quantiles.gather(1, upper - 1), quantiles.diff(dim=1).gather(1, upper - 1)
        inside = columns.clamp(quantiles[:, :1], quantiles[:, -1:])
        fraction = ((inside - left) / width).where(width > 0, float(right))
        scores = torch.lerp(normal[upper - 1], normal[upper], fraction)
        spread = (quantiles[:, -1:] - quantiles[:, :1]) / (normal[-1] - normal[0])
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


def _reset(module: nn.Module, incompatible: Any) -> None:
    cast("NormalScores", module)._complete = False


def _levels() -> Tensor:
    return (torch.arange(_QUANTILES) + 0.5) / _QUANTILES


def _normal_quantiles() -> Tensor:
    return cast("Tensor", torch.special.ndtri(_levels()))


def _quantiles(x: Tensor) -> Tensor:
    """(D, 64) quantiles of the columns of (N, D), linear between order statistics."""
    ordered = upcast(x).sort(dim=0).values.mT
    position = (_levels().to(ordered) * len(x) - 0.5).clamp(0, len(x) - 1)
    lower = position.long()
    upper = (lower + 1).clamp(max=len(x) - 1)
    return torch.lerp(ordered[:, lower], ordered[:, upper], position - lower)
