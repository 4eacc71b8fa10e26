"""How many samples have the label of their nearest training samples."""

from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from lightning_mi.metrics.feature_base import AbstractFeatureMetric, can_be_judged
from lightning_mi.utilities.numerics import upcast

Similarity = Literal["inner_product", "cosine"]

_CHUNK = 2**22  # similarities held at once: 16 MiB in float32


@torch.no_grad()
def nearest_neighbor_accuracy(
    features: Tensor,
    labels: Tensor,
    reference_features: Tensor,
    reference_labels: Tensor,
    k: int = 1,
    similarity: Similarity = "inner_product",
) -> Tensor:
    """Accuracy of nearest neighbors; the definition is :class:`~lightning_mi.metrics.NearestNeighborAccuracy`'s.

    Args:
        features: (N, D).
        labels: (N,) integers.
        reference_features: (M, D).
        reference_labels: (M,) integers.
        k: How many neighbors vote.
        similarity: ``"inner_product"`` or ``"cosine"``.

    Returns:
        A scalar in [0, 1], float32; NaN where a feature is not finite.

    Raises:
        TypeError: Labels are not integers.
        ValueError: Something is empty or does not fit, there is one class only, or M < k.

    Warns:
        MINumericalWarning: A feature is infinite or not a number.

    Source: Choi and Lee 2022, section 5 (k = 1, inner product).

    Example:
        >>> reference = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
        >>> nearest_neighbor_accuracy(torch.tensor([[2.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1]), *reference)
        tensor(0.5000)
    """
    _check_arguments(k, similarity)
    name = NearestNeighborAccuracy.__name__
    if not can_be_judged(features, labels, reference_features, reference_labels, name):
        return features.new_full((), torch.nan, dtype=torch.float32)
    if k > len(reference_features):
        raise ValueError(f"{name}(k={k}) got {len(reference_features)} reference samples: lower k.")
    features, reference_features = upcast(features), upcast(reference_features)
    if similarity == "cosine":
        features = torch.nn.functional.normalize(features)
        reference_features = torch.nn.functional.normalize(reference_features)
    # In the order of their labels, so that the first of equals is the one of the smallest label.
    reference_labels, order = reference_labels.long().sort(stable=True)
    candidates = reference_features[order].T
    classes, indices = torch.unique(reference_labels, return_inverse=True)
    correct = torch.zeros((), dtype=torch.long, device=features.device)
    rows = max(1, _CHUNK // len(order))
    for chunk, truth in zip(torch.split(features, rows), torch.split(labels, rows), strict=True):
        voters = indices[_most_similar(chunk @ candidates, k)]
        votes = torch.nn.functional.one_hot(voters, len(classes)).sum(dim=1)
        correct += (classes[votes.argmax(dim=1)] == truth).sum()
    return correct.float() / len(features)


@final
class NearestNeighborAccuracy(AbstractFeatureMetric):
    """The share of samples whose label is that of their nearest reference samples.

    Nearest is the greatest inner product, on features as they are, or the greatest cosine (a feature vector of zeros
    has cosine 0 with all). With k > 1 each of the k nearest has one vote, whatever its similarity. Ties, of
    similarities and of votes, go to the smallest label, so the order of the samples does not matter; a collapsed
    encoder, all of whose features are equal, gets the share of the smallest label. Similarities are computed in
    float32, a few million at a time.

    Inputs of ``update``:
        - ``features`` ((N, D) float): a batch.
        - ``labels`` ((N,) int): of the batch.
        - ``reference`` (bool): True for the features that are searched for neighbors, of training samples.

    Args:
        k: How many neighbors vote, at least 1.
        similarity: ``"inner_product"`` or ``"cosine"``.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` gives a scalar in [0, 1], float32; NaN, with a :class:`MINumericalWarning`, where a feature of any
        sample is infinite or not a number.

    Raises:
        ValueError: k < 1 or another similarity.

    Source: Choi and Lee 2022, section 5 (k = 1, inner product).

    Example:
        >>> metric = NearestNeighborAccuracy()
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]), reference=True)
        >>> metric.update(torch.tensor([[2.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1]))
        >>> metric.compute()
        tensor(0.5000)
    """

    def __init__(self, k: int = 1, similarity: Similarity = "inner_product", **kwargs: Any) -> None:
        _check_arguments(k, similarity)
        super().__init__(**kwargs)
        self.k = k
        self.similarity = similarity

    def compute(self) -> Tensor:
        """The accuracy on all features of all processes."""
        return nearest_neighbor_accuracy(*self.gathered(), k=self.k, similarity=self.similarity)


def _most_similar(similarities: Tensor, k: int) -> Tensor:
    """(N, k) columns of the greatest of (N, M) similarities, the first of equals."""
    if k == 1:
        return similarities.argmax(dim=1, keepdim=True)
    # topk chooses among equals as it likes, so only its threshold is taken.
    threshold = similarities.topk(k, dim=1).values[:, -1:]
    above, equal = similarities > threshold, similarities == threshold
    chosen = above | (equal & (equal.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)))
    return chosen.nonzero()[:, 1].reshape(-1, k)


def _check_arguments(k: int, similarity: str) -> None:
    if k < 1:
        raise ValueError(f"Got k={k}: at least 1 neighbor votes.")
    if similarity not in get_args(Similarity):
        raise ValueError(f"Got similarity={similarity!r}: it is one of {', '.join(map(repr, get_args(Similarity)))}.")
