"""Folds partition the samples, and no member sees the fold that it scores."""

import numpy as np
import pytest

from lightning_mi.estimation.folds import make_folds, split_members

N = 103
GROUPS = np.random.default_rng(1).integers(0, 20, N)
OPTIONS = {"plain": None, "groups": GROUPS, "blocks": np.arange(N) // 10}


@pytest.mark.parametrize("name", OPTIONS)
def test_folds_partition_the_samples(name):
    folds = make_folds(N, 4, np.random.default_rng(0), OPTIONS[name])
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(N))
    assert max(map(len, folds)) - min(map(len, folds)) <= (1 if name == "plain" else 10)


@pytest.mark.parametrize("name", ["groups", "blocks"])
def test_no_group_is_in_two_folds(name):
    groups = OPTIONS[name]
    assert groups is not None
    folds = make_folds(N, 4, np.random.default_rng(0), OPTIONS[name])
    found = [set(groups[fold]) for fold in folds]
    assert not any(a & b for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["plain", "groups"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_members_see_neither_their_fold_nor_their_validation(groups, fraction):
    rng = np.random.default_rng(0)
    folds = make_folds(N, 4, rng, groups)
    splits = split_members(folds, 2, rng, groups, fraction)
    assert [split.fold for split in splits] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len({len(split.train) for split in splits}) == len({len(split.validation) for split in splits}) == 1
    for split in splits:
        parts = [set(folds[split.fold]), set(split.train), set(split.validation)]
        assert sum(map(len, parts)) == len(set.union(*parts))
        if groups is not None:
            in_groups = [set(groups[list(part)]) for part in parts]
            assert sum(map(len, in_groups)) == len(set.union(*in_groups))


def test_fraction_reduces_the_samples_for_the_fit():
    folds = make_folds(400, 4, np.random.default_rng(0))
    sizes = [len(split_members(folds, 1, np.random.default_rng(0), fraction=f)[0].train) for f in (0.5, 1.0)]
    assert sizes == [128, 255]  # 85 % of 150 and of 300 samples outside of the fold, rounded
