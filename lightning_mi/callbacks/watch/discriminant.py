"""Regularized linear discriminants: classifiers in closed form, for few samples of many features."""

from typing import NamedTuple

import torch
from torch import Tensor

SHRINKAGES = (0.01, 0.1, 0.5, 0.9)  # of the covariance within classes, toward its mean variance
MEAN_SCALES = (0.25, 0.5, 1.0)  # of the means of the classes, toward that of all


class Discriminant(NamedTuple):
    """Linear logits.

    Attributes:
        weight: (D, C).
        offset: (C,).
    """

    weight: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C) logits of (N, D)."""
        return x @ self.weight + self.offset


def linear_discriminants(x: Tensor, y: Tensor, num_classes: int) -> list[Discriminant]:
    """Gaussian classifiers with a common covariance, one for each shrinkage of covariance and means.

    Few samples of many features need much of both: the logits of means and covariances as estimated are too large.

    Args:
        x: (N, D).
        y: (N,) labels.
        num_classes: C.

    Source: Friedman 1989 (regularized discriminant analysis).

    Example:
        >>> x, y = torch.tensor([[-1.0], [-3.0], [1.0], [3.0]]), torch.tensor([0, 0, 1, 1])
        >>> logits = linear_discriminants(x, y, num_classes=2)[-1](x)
        >>> logits - logits[:, :1]  # equally likely at 0
        tensor([[ 0., -4.],
                [ 0., -12.],
                [ 0.,  4.],
                [ 0., 12.]])
    """
    counts = torch.bincount(y, minlength=num_classes).to(x)
    center = x.mean(dim=0)
    sums = torch.zeros(num_classes, x.shape[1]).to(x).index_add_(0, y, x - center)
    means = sums / counts.clamp_min(1).unsqueeze(1)
    residual = x - center - means[y]
    variances, directions = torch.linalg.eigh(residual.T @ residual / len(x))
    average = variances.mean().clamp_min(1e-12)
    log_law = ((counts + 1) / (len(y) + num_classes)).log()  # a class without samples stays possible
    found = []
    for shrinkage in SHRINKAGES:
        inverse = 1 / ((1 - shrinkage) * variances.clamp_min(0) + shrinkage * average)
        for scale in MEAN_SCALES:
            weight = directions @ (inverse.unsqueeze(1) * (directions.T @ (scale * means.T)))
            offset = log_law - 0.5 * scale * (means * weight.T).sum(dim=1) - center @ weight
            found.append(Discriminant(weight, offset))
    return found
