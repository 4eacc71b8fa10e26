"""Probe metrics and functions by name, and features with labels for them."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits

from lightning_mi.metrics import LinearProbeAccuracy, NearestNeighborAccuracy, functional

EVERY = {"nearest_neighbor": NearestNeighborAccuracy, "linear": LinearProbeAccuracy}
FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "nearest_neighbor": functional.nearest_neighbor_accuracy,
    "linear": functional.linear_probe_accuracy,
}


def digits(num_reference=600, num=300):
    """Queries, their labels, references, their labels; whole numbers, so that inner products are exact."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    last = num_reference + num
    return x[num_reference:last], y[num_reference:last], x[:num_reference], y[:num_reference]


def noise(num=10, num_reference=20, classes=3, width=4):
    rng = np.random.default_rng(0)
    sizes = ((num, width), num), ((num_reference, width), num_reference)
    pairs = [(torch.tensor(rng.normal(size=s)).float(), torch.tensor(rng.integers(0, classes, n))) for s, n in sizes]
    return *pairs[0], *pairs[1]


def updated(make, data, batches=7, **kwargs):
    metric = make(**kwargs)
    x, y, reference_x, reference_y = data
    for batch in zip(reference_x.chunk(batches), reference_y.chunk(batches), strict=True):
        metric.update(*batch, reference=True)
    for batch in zip(x.chunk(batches), y.chunk(batches), strict=True):
        metric.update(*batch)
    return metric
