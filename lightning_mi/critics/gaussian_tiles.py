"""Tiles of Gaussian log-densities: each sample under each density."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from lightning_mi.critics.diagonal_gaussian import LOG_TWO_PI, DiagonalGaussian
from lightning_mi.scores.tiles import AbstractTiles, TileBackward


@final
class GaussianTiles(AbstractTiles):
    r"""Scores :math:`\log q_i(y_j)` of N densities at M samples.

    The quadratic form is a sum of squared differences. Its expansion into inner products would be faster, but cancels
    for small variances.

    Args:
        density: N densities of D coordinates; mean and log-variance are (N, D) each, float32 or wider.
        y: (M, D), in the dtype of the densities.
        by_sample: The rows are the samples and the columns are the densities.

    Example:
        >>> density = DiagonalGaussian(torch.zeros(3, 2), torch.zeros(3, 2))
        >>> GaussianTiles(density, torch.zeros(4, 2)).tile(slice(2, 3), differentiate=False)[0]
        tensor([[-1.8379, -1.8379, -1.8379, -1.8379]])
    """

    def __init__(self, density: DiagonalGaussian, y: Tensor, *, by_sample: bool = False) -> None:
        self.inputs = (density.mean, density.log_variance, y)
        self.column_inputs = (0, 1) if by_sample else (2,)
        self._by_sample = by_sample
        self.shape = (len(y), len(density.mean)) if by_sample else (len(density.mean), len(y))
        # Differences, their products with inverse variances, and one temporary.
        self.row_bytes = 3 * self.shape[1] * max(y.shape[1], 1) * y.element_size()

    def matrix(self) -> Tensor:
        """(N, M) all log-densities, with (N, M, D) differences."""
        mean, log_variance, y = self.inputs
        scores = _log_densities(*_spread(mean, log_variance, y))
        return scores.T if self._by_sample else scores

    def at(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """(K,) the log-densities of some entries."""
        mean, log_variance, y = self.inputs
        densities, samples = (columns, rows) if self._by_sample else (rows, columns)
        return _log_densities(mean[densities], log_variance[densities], y[samples])

    @torch.no_grad()
    def tile(self, rows: slice, differentiate: bool) -> tuple[Tensor, TileBackward]:
        """Log-densities of some rows."""
        every = slice(None)
        densities, samples = (every, rows) if self._by_sample else (rows, every)
        mean, log_variance, y = _spread(self.inputs[0][densities], self.inputs[1][densities], self.inputs[2][samples])
        difference = y - mean  # (n, m, D): densities first
        weighted = difference * (-log_variance).exp()
        squares = torch.einsum("ijd,ijd->ij", difference, weighted)
        scores = -0.5 * (squares + (log_variance + LOG_TWO_PI).sum(dim=-1))

        def backward(weights: Tensor, into: list[Tensor | None]) -> None:
            grad_mean, grad_log_variance, grad_y = into
            weights = weights.T if self._by_sample else weights
            if grad_mean is not None:
                grad_mean[densities] += torch.einsum("ij,ijd->id", weights, weighted)
            if grad_y is not None:
                grad_y[samples] -= torch.einsum("ij,ijd->jd", weights, weighted)
            if grad_log_variance is not None:
                squares = torch.einsum("ij,ijd->id", weights, difference * weighted)
                grad_log_variance[densities] += 0.5 * (squares - weights.sum(dim=1, keepdim=True))

        return (scores.T.contiguous() if self._by_sample else scores), backward

    def transpose(self) -> GaussianTiles:
        """Each sample in a row, each density in a column; and back."""
        mean, log_variance, y = self.inputs
        return GaussianTiles(DiagonalGaussian(mean, log_variance), y, by_sample=not self._by_sample)


def _spread(mean: Tensor, log_variance: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes (N, 1, D), (N, 1, D) and (M, D), which broadcast to (N, M, D)."""
    return mean.unsqueeze(1), log_variance.unsqueeze(1), y


def _log_densities(mean: Tensor, log_variance: Tensor, y: Tensor) -> Tensor:
    """The log-density over the last dimension of shapes that broadcast."""
    squares = (y - mean).square() * (-log_variance).exp()
    return -0.5 * (squares.sum(dim=-1) + (log_variance + LOG_TWO_PI).sum(dim=-1))
