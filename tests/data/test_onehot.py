"""OneHotDataModule: symbols, copies and independent marginal pairs."""

import math

import pytest
import torch
from scipy.stats import chisquare

from lightning_mi.data import OneHotDataModule


def test_batches_contain_copies_and_independent_pairs():
    batch = next(iter(OneHotDataModule(num_symbols=5, batch_size=20_000).train_dataloader()))
    assert isinstance(batch, tuple)
    assert [(part.shape, part.dtype) for part in batch] == [((20_000,), torch.int64)] * 4
    x, y, x_marginal, y_marginal = batch
    assert torch.equal(x, y)
    # For independent symbols, all 25 pairs are equally frequent.
    for a, b in ((x_marginal, y_marginal), (x, x_marginal), (x, y_marginal)):
        counts = torch.bincount(5 * a + b, minlength=25)
        assert chisquare(counts.numpy()).pvalue > 1e-4


def test_joint_pairs_do_not_depend_on_the_marginal_pairs():
    with_pair = next(iter(OneHotDataModule().train_dataloader()))
    x, y = next(iter(OneHotDataModule(independent_marginal=False).train_dataloader()))
    assert torch.equal(x, with_pair[0])
    assert torch.equal(x, y)


def test_true_mi_is_the_entropy_of_a_symbol():
    data = OneHotDataModule(num_symbols=16)
    assert data.true_mi(0) == data.true_mi(2999) == data.true_mi() == pytest.approx(4 * math.log(2))


def test_splits_have_different_fixed_batches():
    data = OneHotDataModule(batch_size=50, steps=4, val_batches=3, test_batches=2)
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    assert [len(loader) for loader in loaders] == [len(list(loader)) for loader in loaders] == [4, 3, 2]
    first = [next(iter(loader))[0] for loader in loaders]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])
    assert torch.equal(next(iter(data.val_dataloader()))[2], next(iter(data.val_dataloader()))[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_symbols": 1}, "num_symbols=1: it must be at least"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        OneHotDataModule(**arguments)


def test_prediction_uses_the_test_batches():
    data = OneHotDataModule(batch_size=4, test_batches=2)
    for predicted, tested in zip(data.predict_dataloader(), data.test_dataloader(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(predicted, tested, strict=True))
