"""Discrete laws: any joint table, the symmetric channel, and noisy bits."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.laws._arguments import check_law, check_probability, matrix_tuple
from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.utilities.checks import check_whole
from lightning_mi.utilities.labels import check_labels


class AbstractTable(AbstractLaw):
    r"""A joint law of two labels, given by a table of probabilities.

    .. math:: I = \sum_{x, y} p(x, y) \ln \frac{p(x, y)}{p(x) p(y)}

    Samples are x (n,) and y (n,) int64.

    Source: Cover and Thomas 2006, chapter 2.
    """

    @abstractmethod
    def table(self) -> Tensor:
        """(K, L) float64 probabilities of x = row and y = column."""

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats."""
        table = self.table()
        return max(0.0, float(torch.where(table > 0, table * self._log_table, 0.0).sum()))

    @property
    def num_x_labels(self) -> int:
        """K."""
        return self.table().shape[0]

    @property
    def num_y_labels(self) -> int:
        """L."""
        return self.table().shape[1]

    @property
    def exchangeable(self) -> bool:
        """Whether the table is symmetric."""
        table = self.table()
        return table.shape[0] == table.shape[1] and torch.equal(table, table.T)

    @cached_property
    def _log_table(self) -> Tensor:
        """(K, L) log-ratios; -infinity where a probability is 0."""
        table = self.table()
        product = table.sum(1, keepdim=True) * table.sum(0, keepdim=True)
        return torch.where(table > 0, (table / product).log(), -math.inf)

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        table = self.table()
        cell = torch.multinomial(table.flatten(), n, replacement=True, generator=generator)
        return cell // table.shape[1], cell % table.shape[1]

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self._labels(x, y)
        return self._log_table.to(x.device)[x, y]

    def _log_ratio_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self._labels(x, y)
        return self._log_table.to(x.device)[x][:, y]

    def _labels(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        consumer = type(self).__name__
        return check_labels(x, len(x), consumer, self.num_x_labels), check_labels(
            y, len(y), consumer, self.num_y_labels
        )


@final
@dataclass(frozen=True)
class JointTable(AbstractTable):
    """Two labels with any joint law.

    Samples are x (n,) and y (n,) int64.

    Args:
        probabilities: K rows of L probabilities with sum 1: p(x, y) of x = row and y = column.

    Raises:
        TypeError: If an entry is not a number.
        ValueError: If the entries are not probabilities with sum 1, or rows differ in length.

    Source: Cover and Thomas 2006, chapter 2.

    Example:
        >>> JointTable([[0.5, 0.0], [0.25, 0.25]]).true_mi
        0.2158
    """

    probabilities: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        rows = matrix_tuple("probabilities", self.probabilities)
        check_law("probabilities", [value for row in rows for value in row])
        object.__setattr__(self, "probabilities", rows)

    def table(self) -> Tensor:
        """(K, L) float64 probabilities."""
        return torch.tensor(self.probabilities, dtype=torch.float64)

    def describe(self) -> str:
        """One line of plain text."""
        return f"joint table of {self.num_x_labels} x {self.num_y_labels} labels"


@final
@dataclass(frozen=True)
class SymmetricChannel(AbstractTable):
    r"""A uniform label x, and y, which is x or, with probability e, one of the other labels.

    .. math:: I = \ln K - H_b(e) - e \ln(K - 1), \quad H_b(e) = -e \ln e - (1 - e) \ln(1 - e)

    Samples are x (n,) and y (n,) int64. With e = 0, y is x and the MI is log K.

    Args:
        num_labels: K, at least 2.
        error: e, from 0 to 1.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of range.

    Source: Cover and Thomas 2006, chapter 7.

    Example:
        >>> SymmetricChannel(10, error=0.1).true_mi
        1.7578
    """

    num_labels: int = 10
    error: float = 0.1

    def __post_init__(self) -> None:
        check_whole("num_labels", self.num_labels, 2)
        check_probability("error", self.error)

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats."""
        wrong = self.error * math.log(self.num_labels - 1)
        return max(0.0, math.log(self.num_labels) - binary_entropy(self.error) - wrong)

    def table(self) -> Tensor:
        """(K, K) float64 probabilities."""
        size = self.num_labels
        wrong = torch.full((size, size), self.error / (size - 1), dtype=torch.float64)
        return wrong.fill_diagonal_(1 - self.error) / size

    def describe(self) -> str:
        """One line of plain text."""
        return f"symmetric channel of {self.num_labels} labels with error {self.error:g}"


@final
@dataclass(frozen=True)
class NoisyBits(AbstractLaw):
    r"""D independent uniform bits x and copies y, each flipped with probability p.

    .. math:: I = D (\ln 2 - H_b(p)), \quad H_b(p) = -p \ln p - (1 - p) \ln(1 - p)

    Samples are x (n, D) and y (n, D), float64 zeros and ones.

    Args:
        flip: p, from 0 to 1.
        dim: D, at least 1.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of range.

    Source: Cover and Thomas 2006, chapter 7.

    Example:
        >>> NoisyBits(flip=0.1).true_mi
        0.3681
    """

    flip: float = 0.1
    dim: int = 1

    def __post_init__(self) -> None:
        check_probability("flip", self.flip)
        check_whole("dim", self.dim, 1)

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats."""
        return self.dim * max(0.0, math.log(2) - binary_entropy(self.flip))

    @property
    def exchangeable(self) -> bool:
        """Whether (x, y) and (y, x) have the same law: always."""
        return True

    def describe(self) -> str:
        """One line of plain text."""
        return f"{self.dim} noisy bits with flip probability {self.flip:g}"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, flips = torch.rand(2, n, self.dim, generator=generator, dtype=torch.float64)
        x = (x < 0.5).double()
        return x, torch.where(flips < self.flip, 1 - x, x)

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        values = torch.tensor([1 - self.flip, self.flip], dtype=torch.float64, device=x.device).mul(2).log()
        return values[(x != y).long()].sum(1)


def binary_entropy(probability: float) -> float:
    """Entropy of a bit, in nats.

    Example:
        >>> binary_entropy(0.5), binary_entropy(0.0)
        (0.6931, 0.0)
    """
    return 0.0 - sum(p * math.log(p) for p in (probability, 1 - probability) if p > 0)
