"""Digits of noisy labels: images determine labels, and are drawn by label."""

import torch
from scipy.stats import chisquare

from lightning_mi.data import laws
from lightning_mi.data.laws.images import _digits, _nearest_label


def test_no_image_has_two_labels():
    digits = _digits()
    labels: dict[bytes, set[int]] = {}
    for image, label in zip(digits.images, digits.labels.tolist(), strict=True):
        labels.setdefault(image.numpy().tobytes(), set()).add(label)
    assert max(map(len, labels.values())) == 1
    assert torch.equal(_nearest_label(digits.images.float()), digits.labels)


def test_labels_pass_the_channel_and_images_are_uniform():
    law = laws.DigitChannel(0.2, y_is_label=True)
    x, y = law.sample(20_000, torch.Generator().manual_seed(0))
    label = _nearest_label(x)
    wrong = (label != y).double().mean()
    assert abs(wrong - 0.2) < 4 * (0.16 / 20_000) ** 0.5
    assert chisquare(torch.bincount(10 * label + y, minlength=100)[torch.eye(10).flatten() == 0].numpy()).pvalue > 1e-3
    digits = _digits()
    threes = digits.images[digits.labels == 3]
    drawn = torch.cdist(x[label == 3].flatten(1), threes.flatten(1)).argmin(dim=1)
    assert chisquare(torch.bincount(drawn, minlength=len(threes)).numpy()).pvalue > 1e-3


def test_both_sides_are_drawn_independently_given_their_labels():
    x, y = laws.DigitChannel(0.0).sample(200, torch.Generator().manual_seed(0))
    assert torch.equal(_nearest_label(x), _nearest_label(y))
    assert (x == y).flatten(1).all(dim=1).float().mean() < 0.05
