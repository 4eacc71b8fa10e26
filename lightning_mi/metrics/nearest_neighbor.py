"""NearestNeighborAccuracy: the accuracy of a k-nearest-neighbor classifier on frozen features."""

from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from lightning_mi.metrics.feature_base import AbstractFeatureMetric, check_finite_features
from lightning_mi.utilities.checks import check_choice, check_whole
from lightning_mi.utilities.numerics import upcast

Similarity = Literal["inner_product", "cosine"]

_CHUNK = 2**22  # similarities in memory at once: 16 MiB in float32


@torch.no_grad()
def nearest_neighbor_accuracy(
    features: Tensor,
    labels: Tensor,
    reference_features: Tensor,
    reference_labels: Tensor,
    *,
    k: int = 1,
    similarity: Similarity = "inner_product",
) -> Tensor:
    """Accuracy of a nearest-neighbor classifier; see :class:`~lightning_mi.metrics.NearestNeighborAccuracy`.

    Args:
        features: (N, D).
        labels: (N,) integers.
        reference_features: (M, D).
        reference_labels: (M,) integers.
        k: The number of neighbors that vote.
        similarity: ``"inner_product"`` or ``"cosine"``.

    Returns:
        A scalar in [0, 1], float32; NaN if a feature is not finite.

    Raises:
        TypeError: Labels are not integers.
        ValueError: An input is empty or of a wrong shape, there is only one class, or M < k.

    Warns:
        MINumericalWarning: A feature is infinite or NaN.

    Source: Choi and Lee 2022, section 5 (k = 1, inner product).

    Example:
        >>> reference = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
        >>> nearest_neighbor_accuracy(torch.tensor([[2.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1]), *reference)
        tensor(0.5000)
    """
    _check_arguments(k, similarity)
    name = NearestNeighborAccuracy.__name__
    if not check_finite_features(features, labels, reference_features, reference_labels, name):
        return features.new_full((), torch.nan, dtype=torch.float32)
    if k > len(reference_features):
        raise ValueError(f"{name}(k={k}) got {len(reference_features)} reference samples: lower k.")
    features, reference_features = upcast(features), upcast(reference_features)
    if similarity == "cosine":
        features = torch.nn.functional.normalize(features)
        reference_features = torch.nn.functional.normalize(reference_features)
    # Sorted by label: the first of equally similar candidates then has the smallest label.
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
    """The accuracy of a k-nearest-neighbor classifier on frozen features.

    The nearest reference samples have the largest inner product, without normalization, or the largest cosine (a
    feature vector of zeros has cosine 0 with all). With k > 1 each of the k nearest has one vote. Ties of similarities
    and of votes go to the smallest label, so the order of samples does not matter; a collapsed encoder, whose features
    are all equal, gets the frequency of the smallest label. Similarities are computed in float32, in chunks of a few
    million.

    Inputs of ``update``:
        - ``features`` ((N, D) float): a batch.
        - ``labels`` ((N,) int): of the batch.
        - ``reference`` (bool): True for training samples, among which neighbors are searched.

    Args:
        k: The number of neighbors that vote, at least 1.
        similarity: ``"inner_product"`` or ``"cosine"``.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Returns:
        ``compute`` returns a scalar in [0, 1], float32; NaN, with a :class:`MINumericalWarning`, if a feature is
        infinite or NaN.

    Raises:
        ValueError: ``k`` is below 1, or the similarity is unknown.

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
        """The accuracy on all features of all ranks."""
        return nearest_neighbor_accuracy(*self.gathered(), k=self.k, similarity=self.similarity)


def _most_similar(similarities: Tensor, k: int) -> Tensor:
    """(N, k) columns of the largest of (N, M) similarities; of equal ones, the first."""
    if k == 1:
        return similarities.argmax(dim=1, keepdim=True)
    # The order of equal values in topk is undefined, so only its threshold is used.
    threshold = similarities.topk(k, dim=1).values[:, -1:]
    above, equal = similarities > threshold, similarities == threshold
    chosen = above | (equal & (equal.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)))
    return chosen.nonzero()[:, 1].reshape(-1, k)


def _check_arguments(k: int, similarity: str) -> None:
    check_whole("k", k, 1)
    check_choice("similarity", similarity, get_args(Similarity))
