"""One line per layout of scores: a matrix without or with masks, or two lists."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_mi import Scores
from tests.helpers.reference import Sheet


@dataclass(frozen=True)
class Layout:
    """The layout of scores: a matrix without or with masks, or two lists, one after the other."""

    name: str
    joint: np.ndarray
    marginal: np.ndarray
    columns: np.ndarray  # the candidate of each score

    @property
    def has_rows(self) -> bool:
        return self.joint.ndim == 2

    @property
    def y(self) -> np.ndarray:
        """The candidates' representations."""
        return np.random.default_rng(7).normal(size=(self.columns.max() + 1, 2))

    def draw(self, seed: int = 0, mean: float = 0.0, std: float = 1.5) -> np.ndarray:
        """Normal scores, float64."""
        return np.random.default_rng(seed).normal(mean, std, self.joint.shape)

    def sheet(self, t: np.ndarray, y: np.ndarray | None = None) -> Sheet:
        """For the reference."""
        return Sheet(t, self.joint, self.marginal, (self.y if y is None else y)[self.columns])

    def scores(self, t: Tensor, y: Tensor | None = None) -> Scores:
        """For the package."""
        if y is None:
            y = torch.as_tensor(self.y)
        if not self.has_rows:
            split = int(self.joint.sum())
            columns = torch.as_tensor(self.columns)
            default = np.array_equal(self.columns, np.arange(len(t)))
            kwargs = {} if default else {"joint_columns": columns[:split], "marginal_columns": columns[split:]}
            return Scores.from_samples(t[:split], t[split:], y=y, **kwargs)
        if self.name == "diagonal":
            return Scores.from_matrix(t, y=y)
        return Scores.from_matrix(t, joint=torch.as_tensor(self.joint), marginal=torch.as_tensor(self.marginal), y=y)


def _diagonal(n: int) -> Layout:
    eye = np.eye(n, dtype=bool)
    return Layout("diagonal", eye, ~eye, np.broadcast_to(np.arange(n), (n, n)))


def _masks() -> Layout:
    # Rows with two joint pairs, without any, without marginal pairs, without pairs; an entry that is both.
    joint, marginal = np.zeros((6, 7), bool), np.zeros((6, 7), bool)
    joint[[0, 0, 1, 4, 5], [1, 3, 2, 0, 6]] = True
    marginal[0, 4:] = marginal[1] = marginal[2, ::2] = marginal[5, :5] = True
    return Layout("masks", joint, marginal, np.broadcast_to(np.arange(7), (6, 7)))


def _lists(columns: list[int] | None = None) -> Layout:
    is_joint = np.arange(9) < 4
    name = "lists" if columns is None else "lists with columns"
    return Layout(name, is_joint, ~is_joint, np.arange(9) if columns is None else np.array(columns))


LAYOUTS = [_diagonal(6), _masks(), _lists(), _lists([2, 0, 3, 1, 3, 2, 0, 0, 4])]
