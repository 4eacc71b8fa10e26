"""Laws made of others: maps of x and y, sides exchanged, and independent sides."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.data.laws.maps import AbstractMap
from lightning_mi.utilities.checks import check_instance


class _AbstractWrapped(AbstractLaw):
    """A law with the MI of another one: ``law``."""

    law: AbstractLaw

    @property
    def independent_samples(self) -> bool:
        """Whether the n pairs of a sample are independent."""
        return self.law.independent_samples

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats: that of the base law."""
        return self.law.true_mi

    @property
    def has_log_ratio(self) -> bool:
        """Whether the base law has one."""
        return self.law.has_log_ratio


@final
@dataclass(frozen=True)
class Mapped(_AbstractWrapped):
    """Injective maps of x and of y: the MI stays the same, and the log-ratio is that of the inverse images.

    The Jacobians of numerator and denominator cancel, so the log-ratio needs only the inverses. To apply several maps,
    map a ``Mapped`` law again.

    Args:
        law: The base law.
        x_map: Map of x; None keeps x.
        y_map: Map of y; None keeps y.

    Raises:
        TypeError: If ``law`` is not a law, or a map not a map.

    Source: Kraskov et al. 2004 (invariance); Czyz et al. 2023.

    Example:
        >>> from lightning_mi.data.laws import Elementwise, GaussianPairs
        >>> law = Mapped(GaussianPairs(rho=0.75), y_map=Elementwise("cubic"))
        >>> law.true_mi, law.name
        (0.4133, 'cubic(GaussianPairs)')
    """

    law: AbstractLaw
    x_map: AbstractMap | None = None
    y_map: AbstractMap | None = None

    def __post_init__(self) -> None:
        check_instance("law", self.law, AbstractLaw, "laws.GaussianPairs()")
        for name, value in (("x_map", self.x_map), ("y_map", self.y_map)):
            check_instance(name, value, (AbstractMap, type(None)), 'laws.Elementwise("cubic")')

    @property
    def num_x_labels(self) -> int | None:
        """K if x is labels; a map of x gives numbers."""
        return self.law.num_x_labels if self.x_map is None else None

    @property
    def num_y_labels(self) -> int | None:
        """K if y is labels; a map of y gives numbers."""
        return self.law.num_y_labels if self.y_map is None else None

    @property
    def exchangeable(self) -> bool:
        """Whether the base law is, and both maps are equal."""
        return self.law.exchangeable and self.x_map == self.y_map

    @property
    def name(self) -> str:
        """The maps around the base law."""
        names = [value.name if value else "identity" for value in (self.x_map, self.y_map)]
        maps = names[0] if names[0] == names[1] else " x ".join(names)
        return f"{maps.removeprefix('identity x ')}({self.law.name})"

    def describe(self) -> str:
        """One line of plain text."""
        maps = [f"{side} by {value!r}" for side, value in (("x", self.x_map), ("y", self.y_map)) if value]
        return f"{self.law.describe()}; mapped: {', '.join(maps) or 'nothing'}"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = self.law.sample(n, generator)
        return self.x_map.forward(x) if self.x_map else x, self.y_map.forward(y) if self.y_map else y

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        return self.law.log_ratio(*self._inverse(x, y))

    def _log_ratio_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        return self.law.log_ratio_matrix(*self._inverse(x, y))

    def _inverse(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.x_map.inverse(x) if self.x_map else x, self.y_map.inverse(y) if self.y_map else y


@final
@dataclass(frozen=True)
class Swapped(_AbstractWrapped):
    """The law of (y, x): the same MI, with the sides exchanged.

    Labels of x become labels of y, where :class:`~lightning_mi.pairs.EnumeratedLabels` takes them.

    Args:
        law: The base law.

    Raises:
        TypeError: If ``law`` is not a law.

    Example:
        >>> from lightning_mi.data.laws import DiscreteContinuous
        >>> Swapped(DiscreteContinuous(5)).num_y_labels
        5
    """

    law: AbstractLaw

    def __post_init__(self) -> None:
        check_instance("law", self.law, AbstractLaw, "laws.DiscreteContinuous()")

    @property
    def num_x_labels(self) -> int | None:
        """That of y in the base law."""
        return self.law.num_y_labels

    @property
    def num_y_labels(self) -> int | None:
        """That of x in the base law."""
        return self.law.num_x_labels

    @property
    def exchangeable(self) -> bool:
        """Whether the base law is."""
        return self.law.exchangeable

    @property
    def name(self) -> str:
        """The base law in parentheses."""
        return f"Swapped({self.law.name})"

    def describe(self) -> str:
        """One line of plain text."""
        return f"{self.law.describe()}; x and y exchanged"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = self.law.sample(n, generator)
        return y, x

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        return self.law.log_ratio(y, x)

    def _log_ratio_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        return self.law.log_ratio_matrix(y, x).T


@final
@dataclass(frozen=True)
class Independent(AbstractLaw):
    """x of one law and y of another, drawn independently: the MI is 0.

    Args:
        x_law: Law whose x is taken.
        y_law: Law whose y is taken; it may be the same law.

    Raises:
        TypeError: If an argument is not a law.

    Example:
        >>> from lightning_mi.data.laws import AdditiveUniform, GaussianPairs
        >>> Independent(GaussianPairs(), AdditiveUniform()).true_mi
        0.0
    """

    x_law: AbstractLaw
    y_law: AbstractLaw

    def __post_init__(self) -> None:
        check_instance("x_law", self.x_law, AbstractLaw, "laws.GaussianPairs()")
        check_instance("y_law", self.y_law, AbstractLaw, "laws.GaussianPairs()")

    @property
    def independent_samples(self) -> bool:
        """Whether both laws have independent samples."""
        return self.x_law.independent_samples and self.y_law.independent_samples

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats: 0."""
        return 0.0

    @property
    def num_x_labels(self) -> int | None:
        """That of x in the first law."""
        return self.x_law.num_x_labels

    @property
    def num_y_labels(self) -> int | None:
        """That of y in the second law."""
        return self.y_law.num_y_labels

    def describe(self) -> str:
        """One line of plain text."""
        return f"independent sides; x of: {self.x_law.describe()}; y of: {self.y_law.describe()}"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.x_law.sample(n, generator)[0], self.y_law.sample(n, generator)[1]

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
