"""The tasks of the benchmark of arrays: laws with known MI by name, and samples of them as arrays."""

import math
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.data.laws.benchmark import benchmark_tasks
from lightning_mi.data.laws.concatenated import Concatenated
from lightning_mi.data.laws.discrete import JointTable, NoisyBits, SymmetricChannel
from lightning_mi.data.laws.gaussian import GaussianPairs
from lightning_mi.data.laws.mapped import Independent, Mapped, Swapped
from lightning_mi.data.laws.mixed import DiscreteContinuous, ZeroInflatedPoisson
from lightning_mi.data.laws.mixture import GaussianMixture
from lightning_mi.data.laws.student import StudentT
from lightning_mi.data.laws.uniform import AdditiveUniform
from lightning_mi.data.laws.vector_maps import Rotation
from lightning_mi.exceptions import GridError

GROUPS = ("beyond-normal", "other-laws")

_ROUND = [[1.0, 0.0], [0.0, 1.0]]
_RISING, _FALLING = [[1.0, 0.95], [0.95, 1.0]], [[1.0, -0.95], [-0.95, 1.0]]
_FIVE_NATS = math.sqrt(1 - math.exp(-1.0))  # correlation of 10 pairs whose MI is 5 nats


class Sample(NamedTuple):
    """Samples of a task as arrays.

    Attributes:
        x: (n, Dx) float64 numbers, or (n,) int64 labels.
        y: (n, Dy) float64 numbers, or (n,) int64 labels.
    """

    x: NDArray[np.generic]
    y: NDArray[np.generic]

    @property
    def labels(self) -> tuple[bool, bool]:
        """Whether x and y are labels."""
        return self.x.ndim == 1, self.y.ndim == 1

    @property
    def columns(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n, D) numbers of both sides: labels as one-hot columns."""
        return _columns(self.x), _columns(self.y)


def all_tasks() -> dict[str, dict[str, AbstractLaw]]:
    """The laws by name, by group: the tasks of the benchmark "Beyond Normal", and others.

    Source: Czyz et al. 2023 (``beyond-normal``); Gao et al. 2017 (discrete and continuous sides).

    Example:
        >>> [len(laws) for laws in all_tasks().values()]
        [40, 13]
    """
    return dict(zip(GROUPS, (benchmark_tasks(), _other_laws()), strict=True))


def find_law(name: str) -> AbstractLaw:
    """The law of a task.

    Example:
        >>> find_law("1v1-additive-0.75").true_mi
        0.3333
    """
    return {name: law for laws in all_tasks().values() for name, law in laws.items()}[name]


def select_tasks(patterns: Sequence[str]) -> dict[str, AbstractLaw]:
    """The laws whose names match a pattern with ``*`` and ``?``, or that belong to a group, in the order of the tasks.

    Args:
        patterns: Names, patterns or groups.

    Raises:
        GridError: If a pattern matches no task.

    Example:
        >>> list(select_tasks(["1v1-add*", "channel-10"]))
        ['1v1-additive-0.1', '1v1-additive-0.75', 'channel-10']
    """
    groups = all_tasks()
    laws = {name: law for group in groups.values() for name, law in group.items()}
    chosen: set[str] = set()
    for pattern in patterns:
        matches = groups.get(pattern) or [name for name in laws if fnmatchcase(name, pattern)]
        if not matches:
            close = ", ".join(get_close_matches(pattern, laws, n=3, cutoff=0.4)) or "none"
            raise GridError(
                f"Got task {pattern!r}: no task or group has this name. Groups: {', '.join(GROUPS)}; close names: "
                f"{close}; a pattern such as 'student-*' selects several."
            )
        chosen.update(matches)
    return {name: law for name, law in laws.items() if name in chosen}


def draw(law: AbstractLaw, n: int, seed: int) -> Sample:
    """N samples of a law.

    Example:
        >>> draw(SymmetricChannel(3), 50, seed=0).columns[0].shape
        (50, 3)
    """
    x, y = law.sample(n, torch.Generator().manual_seed(seed))
    return Sample(x.numpy(), y.numpy())


def _columns(side: NDArray[np.generic]) -> NDArray[np.float64]:
    columns = np.equal(side[:, None], np.unique(side)) if side.ndim == 1 else side
    return np.asarray(columns, dtype=np.float64)


def _other_laws() -> dict[str, AbstractLaw]:
    uniform, student = AdditiveUniform(0.75), StudentT(GaussianPairs(dim=5, rho=0.0), df=3)
    corners = [[-2.0, -2.0], [2.0, 2.0], [-2.0, 2.0]]
    return {
        "mixture-cross": GaussianMixture([0.5, 0.5], [[0.0, 0.0], [0.0, 0.0]], [_RISING, _FALLING]),
        "mixture-three-clusters": GaussianMixture([0.4, 0.4, 0.2], corners, [_ROUND] * 3),
        "table-2x3": JointTable([[0.2, 0.1, 0.0], [0.05, 0.25, 0.4]]),
        "channel-10": SymmetricChannel(10, error=0.2),
        "bits-5": NoisyBits(flip=0.1, dim=5),
        "label-uniform-5": DiscreteContinuous(5),
        "uniform-label-5": Swapped(DiscreteContinuous(5)),
        "zero-inflated-poisson": ZeroInflatedPoisson(0.15),
        "additive-uniform-5": Concatenated([uniform] * 5),
        "additive-uniform-5-rotated": Mapped(Concatenated([uniform] * 5), Rotation(5, seed=0), Rotation(5, seed=1)),
        "student-identity-5-5-3-and-additive": Concatenated([student, uniform]),
        "gaussian-10-10-5-nats": GaussianPairs(dim=10, rho=_FIVE_NATS),
        "independent-5": Independent(student, GaussianPairs(dim=5, rho=0.0)),
    }
