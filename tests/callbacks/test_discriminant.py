"""Regularized discriminants against scikit-learn, and probes of few samples of many features."""

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch.nn import functional as F

from lightning_mi.callbacks.watch.discriminant import MEAN_SCALES, SHRINKAGES, linear_discriminants
from lightning_mi.callbacks.watch.reading import read_pair


def shifted(n, dim, seed=0):
    """Gaussian features of which four are shifted by the label."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (n,), generator=generator)
    x = torch.randn(n, dim, generator=generator)
    x[:, :4] += 4 * F.one_hot(y, 4)
    return x, y


def test_discriminants_are_those_of_scikit_learn():
    x, y = shifted(60, 10)
    x = x.double()
    found = linear_discriminants(x, y, num_classes=4)
    law = (np.bincount(y) + 1) / 64
    for index, shrinkage in enumerate(SHRINKAGES):
        weight, offset = found[len(MEAN_SCALES) * (index + 1) - 1]  # with the means as they are
        reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=np.bincount(y) / 60).fit(x, y)
        expected = reference.decision_function(x) - np.log(np.bincount(y) / 60) + np.log(law)
        logits = (x @ weight + offset).numpy()
        np.testing.assert_allclose(logits - logits[:, :1], expected - expected[:, :1], atol=1e-9)


def test_class_without_samples_is_possible_and_unlikely():
    x, y = shifted(50, 5)
    for weight, offset in linear_discriminants(x, y, num_classes=6):
        logits = x @ weight + offset
        assert logits.isfinite().all()
        assert (logits.softmax(dim=1)[:, 4:] < 0.1).all()


def test_few_samples_of_many_features_are_read():
    x, y = shifted(1024 + 1000, 256)
    reading = read_pair((x[:1024], y[:1024]), (x[1024:], y[1024:]), noise=0.0, hidden=64, seed=0)
    assert 1.15 < reading.value < 1.36  # log 4 = 1.386, of which the exact classifier reads 1.36


def test_labels_may_be_any_integers():
    x, y = shifted(500, 8)
    readings = [
        read_pair((x[:300], labels[:300]), (x[300:], labels[300:]), noise=0.0, hidden=8, seed=0)
        for labels in (y, 7 + 10**12 * y)
    ]
    assert readings[0] == readings[1]
