"""Base class of joint laws p(x, y) with known mutual information."""

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from lightning_mi.exceptions import NoLogRatioError
from lightning_mi.utilities.checks import check_whole


class AbstractLaw(ABC):
    """A joint law of x and y with known mutual information, and mostly with an exact log-ratio.

    A law is a frozen dataclass: two laws with equal arguments are equal, and ``repr`` shows the arguments.

    A side of real numbers is a float64 tensor (n, Dx), or (n, C, H, W) for images. A side of class labels 0 to K - 1 is
    an int64 tensor (n,), and ``num_x_labels`` or ``num_y_labels`` is K. A subclass implements :meth:`_sample`,
    :attr:`true_mi` and, if there is a density, :meth:`_log_ratio`.
    """

    @abstractmethod
    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """N pairs; all random numbers come from the generator."""

    @property
    @abstractmethod
    def true_mi(self) -> float:
        """I(x; y) in nats."""

    @abstractmethod
    def describe(self) -> str:
        """One line of plain text: the law, its parameters and its dimensions."""

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) float64 log-ratio of N pairs; x and y have any floating dtype."""
        raise NoLogRatioError(
            f"{type(self).__name__} has no log-ratio: its density is unknown. Check `has_log_ratio`, or choose a law "
            "that has one."
        )

    def _log_ratio_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) float64. This default needs the memory of N M pairs."""
        rows, columns = len(x), len(y)
        every_x = x.repeat_interleave(columns, dim=0)
        every_y = y.repeat(rows, *[1] * (y.ndim - 1))
        return self._log_ratio(every_x, every_y).reshape(rows, columns)

    @final
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n pairs.

        Args:
            n: Number of pairs, at least 1.
            generator: CPU generator; equal states give equal samples.

        Returns:
            x and y with n rows each: float64 numbers, or int64 labels.

        Raises:
            TypeError: ``n`` is not a whole number.
            ValueError: ``n`` is below 1.

        Example:
            >>> from lightning_mi.data.laws import GaussianPairs
            >>> x, y = GaussianPairs(dim=2, rho=0.5).sample(4, torch.Generator().manual_seed(0))
            >>> x.shape, y.dtype
            (torch.Size([4, 2]), torch.float64)
        """
        check_whole("n", n, 1)
        return self._sample(n, generator)

    @final
    def log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Exact :math:`\log p(x, y) / (p(x) p(y))` of each pair: the scores of the optimal critic.

        Args:
            x: N samples, as returned by :meth:`sample` or rounded to another floating dtype.
            y: N samples.

        Returns:
            (N,) float64 nats; -infinity for a pair outside the support.

        Raises:
            NoLogRatioError: The law has no known density.
            ValueError: x and y differ in length.

        Example:
            >>> from lightning_mi.data.laws import GaussianPairs
            >>> GaussianPairs(dim=1, rho=0.5).log_ratio(torch.zeros(1, 1), torch.zeros(1, 1))
            tensor([0.1438], dtype=torch.float64)
        """
        if len(x) != len(y):
            raise ValueError(
                f"Got {len(x)} x and {len(y)} y: row i of both is one pair. Use log_ratio_matrix for every x with "
                "every y."
            )
        return self._log_ratio(x, y)

    @final
    def log_ratio_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """Exact log-ratio of every x with every y; see :meth:`log_ratio`.

        Args:
            x: N samples.
            y: M samples.

        Returns:
            (N, M) float64 nats.

        Raises:
            NoLogRatioError: The law has no known density.

        Example:
            >>> from lightning_mi.data.laws import GaussianPairs
            >>> GaussianPairs(dim=1, rho=0.5).log_ratio_matrix(torch.zeros(2, 1), torch.zeros(3, 1)).shape
            torch.Size([2, 3])
        """
        return self._log_ratio_matrix(x, y)

    @property
    def has_log_ratio(self) -> bool:
        """Whether :meth:`log_ratio` is available; without it, the method raises ``NoLogRatioError``."""
        return type(self)._log_ratio is not AbstractLaw._log_ratio

    @property
    def name(self) -> str:
        """Short name: the class."""
        return type(self).__name__

    @property
    def independent_samples(self) -> bool:
        """Whether the n pairs of a sample are independent; False for a time series."""
        return True

    @property
    def num_x_labels(self) -> int | None:
        """K if x is class labels 0 to K - 1, int64 (n,); None if x is numbers."""
        return None

    @property
    def num_y_labels(self) -> int | None:
        """K if y is class labels 0 to K - 1, int64 (n,); None if y is numbers."""
        return None

    @property
    def exchangeable(self) -> bool:
        """Whether (x, y) and (y, x) have the same law; False if unknown."""
        return False
