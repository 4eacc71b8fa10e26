"""Independent laws side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.utilities.checks import check_instance


@final
@dataclass(frozen=True)
class Concatenated(AbstractLaw):
    r"""x and y are the coordinates of several independent laws, side by side.

    .. math:: I = \sum_i I_i

    Samples are x (n, Dx) and y (n, Dy), with the sums of the dimensions.

    Args:
        laws: At least one law with vectors (n, D) on both sides.

    Raises:
        TypeError: If an entry is not a law.
        ValueError: If there is none, or a side of a law is not vectors.

    Source: Cover and Thomas 2006, chapter 2 (chain rule).

    Example:
        >>> from lightning_mi.data.laws import AdditiveUniform
        >>> Concatenated([AdditiveUniform(0.75), AdditiveUniform(0.75)]).true_mi
        0.6667
    """

    laws: Sequence[AbstractLaw]

    def __post_init__(self) -> None:
        object.__setattr__(self, "laws", tuple(self.laws))
        if not self.laws:
            raise ValueError("Got laws=[]: give at least one law.")
        for law in self.laws:
            check_instance("an entry of laws", law, AbstractLaw, "laws.GaussianPairs()")
        for law, pair in zip(self.laws, self._examples, strict=True):
            if any(side.ndim != 2 for side in pair):
                raise ValueError(
                    f"Got {law.name} with samples of shapes {[tuple(side.shape) for side in pair]}: only vectors "
                    "(n, D) are concatenated. Map labels with OneHotLabels first."
                )

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats."""
        return sum(law.true_mi for law in self.laws)

    @property
    def has_log_ratio(self) -> bool:
        """Whether all laws have one."""
        return all(law.has_log_ratio for law in self.laws)

    @property
    def independent_samples(self) -> bool:
        """Whether all laws have independent samples."""
        return all(law.independent_samples for law in self.laws)

    @property
    def exchangeable(self) -> bool:
        """Whether all laws are."""
        return all(law.exchangeable for law in self.laws)

    @property
    def name(self) -> str:
        """The names of the laws."""
        return " + ".join(law.name for law in self.laws)

    def describe(self) -> str:
        """One line of plain text."""
        return f"independent laws side by side: {'; '.join(law.describe() for law in self.laws)}"

    @cached_property
    def _examples(self) -> list[tuple[Tensor, Tensor]]:
        """One pair of each law."""
        return [law.sample(1, torch.Generator().manual_seed(0)) for law in self.laws]

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        xs, ys = zip(*(law.sample(n, generator) for law in self.laws), strict=True)
        return torch.cat(xs, dim=1), torch.cat(ys, dim=1)

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        return sum((law.log_ratio(*pair) for law, pair in self._split(x, y)), start=torch.zeros((), device=x.device))

    def _log_ratio_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        return sum(
            (law.log_ratio_matrix(*pair) for law, pair in self._split(x, y)), start=torch.zeros((), device=x.device)
        )

    def _split(self, x: Tensor, y: Tensor) -> list[tuple[AbstractLaw, tuple[Tensor, Tensor]]]:
        xs = torch.split(x, [pair[0].shape[1] for pair in self._examples], dim=1)
        ys = torch.split(y, [pair[1].shape[1] for pair in self._examples], dim=1)
        return list(zip(self.laws, zip(xs, ys, strict=True), strict=True))
