"""Splits of the samples for cross-fitting: every sample is scored by critics that were not fitted to it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
_VALIDATION_FRACTION = 0.15


class MemberSplit(NamedTuple):
    """The samples of one member of the ensemble.

    Attributes:
        fold: The fold that it scores.
        train: Indices of the samples that it trains on.
        validation: Indices of the samples that choose its training step and the range of its scores.
    """

    fold: int
    train: Indices
    validation: Indices


def make_folds(n: int, num_folds: int, rng: np.random.Generator, groups: Indices | None = None) -> list[Indices]:
    """Split n samples into folds of nearly equal size.

    Args:
        n: The number of samples.
        num_folds: The number of folds.
        rng: Shuffles.
        groups: (n,) samples of one group are in one fold.

    Example:
        >>> [len(fold) for fold in make_folds(10, 4, np.random.default_rng(0))]
        [3, 3, 2, 2]
    """
    if groups is None:
        return np.array_split(rng.permutation(n), num_folds)
    return _grouped_folds(groups, num_folds, rng)


def split_members(
    folds: list[Indices], members: int, rng: np.random.Generator, groups: Indices | None = None, fraction: float = 1.0
) -> list[MemberSplit]:
    """Training and validation samples of each member: ``members`` for each fold, all of the same sizes.

    Args:
        folds: The result of :func:`make_folds`.
        members: The number of critics for each fold, with different splits of the other folds.
        rng: Shuffles.
        groups: As in :func:`make_folds`; then a group is either in training or in validation.
        fraction: Fraction of the samples outside the fold to use.
    """
    splits = []
    for fold in range(len(folds)):
        others = np.concatenate([other for index, other in enumerate(folds) if index != fold])
        for _ in range(members):
            if groups is None:
                chosen = rng.permutation(others)[: round(fraction * len(others))]
                num_validation = max(2, round(_VALIDATION_FRACTION * len(chosen)))
                splits.append(MemberSplit(fold, chosen[num_validation:], chosen[:num_validation]))
            else:
                parts = _grouped_folds(groups[others], round(1 / _VALIDATION_FRACTION), rng)
                train = rng.permutation(np.concatenate(parts[1:]))[: round(fraction * (len(others) - len(parts[0])))]
                splits.append(MemberSplit(fold, others[train], others[parts[0]]))
    num_train = min(len(split.train) for split in splits)
    num_validation = min(len(split.validation) for split in splits)
    return [MemberSplit(s.fold, s.train[:num_train], s.validation[:num_validation]) for s in splits]


def _grouped_folds(groups: Indices, num_folds: int, rng: np.random.Generator) -> list[Indices]:
    """Assign whole groups, the largest first, to the smallest fold so far."""
    names, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    totals, fold_of_group = np.zeros(num_folds, dtype=np.int64), np.empty(len(names), dtype=np.int64)
    for group in order:
        fold_of_group[group] = totals.argmin()
        totals[fold_of_group[group]] += sizes[group]
    fold_of_sample = fold_of_group[members]
    return [rng.permutation(np.flatnonzero(fold_of_sample == fold)) for fold in range(num_folds)]
