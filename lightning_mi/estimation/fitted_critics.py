"""FittedCritics: scores of new pairs by the critics of an estimation."""

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_mi.estimation.arrays import check_lengths
from lightning_mi.estimation.held_out import BLOCK, HeldOutBlock, log_normalizer, read, score_range
from lightning_mi.estimation.inputs import Variable, read_new_values
from lightning_mi.estimation.run import Run
from lightning_mi.estimation.scoring import pairwise
from lightning_mi.exceptions import EstimateInputError


@final
class FittedCritics:
    """The mean of all critics of an estimation, in the coordinates of its samples.

    Scores are clamped to the range that validation pairs support, as for the held-out scores of the estimate. New
    pairs are outside of the samples of all critics, so that the critics of all folds score them.

    Args:
        run: The estimation.
        x: Its first variable.
        y: Its second variable.
    """

    def __init__(self, run: Run, x: Variable, y: Variable) -> None:
        self._variables, self._coordinates = (x, y), run.coordinates
        first, second = (place(v.values) for place, v in zip(run.coordinates, (x, y), strict=True))
        self._critics = [member.critic.cpu().eval() for member in run.fit.fitted.members]
        self._ranges = [
            score_range(critic, first, second, split)
            for critic, split in zip(self._critics, run.fit.splits, strict=True)
        ]
        rows = np.linspace(0, len(first) - 1, min(len(first), BLOCK)).astype(int)
        self._log_normalizer = log_normalizer([self._pairwise(first[rows], second[rows]).double()])

    def score(self, x: Any, y: Any) -> float:
        """The Donsker-Varadhan bound on new pairs, nats.

        Args:
            x: (m,) or (m, Dx), m at least 2. Beyond 2048 pairs, the marginal pairs are those within random blocks.
            y: (m,) or (m, Dy).

        Raises:
            EstimateInputError: The pairs do not fit the variables of the estimation, or there are fewer than 2.
        """
        first, second = self._place(x, y)
        if (m := len(first)) < 2:
            raise EstimateInputError(f"Got {m} pairs: marginal pairs need at least 2.")
        order = np.random.default_rng(0).permutation(m)  # neighbors in time are not independent
        parts = np.array_split(order, -(-m // BLOCK))
        return read([HeldOutBlock(0, part, self._pairwise(first[part], second[part])) for part in parts]).value

    @torch.no_grad()
    def pointwise(self, x: Any, y: Any) -> NDArray[np.float64]:
        """(m,) log density ratio of new pairs, nats; the log-normalizer is that over the samples of the estimation.

        Args:
            x: (m,) or (m, Dx), m at least 1.
            y: (m,) or (m, Dy).

        Raises:
            EstimateInputError: The pairs do not fit the variables of the estimation.
        """
        first, second = self._place(x, y)
        total = torch.zeros(len(first), dtype=torch.float64)
        for critic, allowed in zip(self._critics, self._ranges, strict=True):
            total += critic.paired(first, second).clamp(*allowed)
        values: NDArray[np.float64] = (total / len(self._critics) - self._log_normalizer).numpy()
        return values

    def _place(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Coordinates of new pairs."""
        values = [read_new_values(data, fitted) for data, fitted in zip((x, y), self._variables, strict=True)]
        check_lengths({fitted.name: len(own) for fitted, own in zip(self._variables, values, strict=True)})
        return self._coordinates[0](values[0]), self._coordinates[1](values[1])

    @torch.no_grad()
    def _pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(m, m) mean scores of all pairs."""
        total = torch.zeros(len(x), len(y))
        for critic, allowed in zip(self._critics, self._ranges, strict=True):
            total += pairwise(critic, x, y).clamp(*allowed) / len(self._critics)
        return total
