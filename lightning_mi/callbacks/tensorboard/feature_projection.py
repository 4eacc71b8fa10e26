"""Two-dimensional projection of features, by principal components."""

from typing import Any, final

import torch
from torch import Tensor

MAX_SAMPLES = 1000


@final
class FeatureProjection:
    """Collects the features and labels of the first ``MAX_SAMPLES`` samples of a stage on this rank.

    Example:
        >>> projection = FeatureProjection()
        >>> projection.add({"features": torch.randn(10, 5), "labels": torch.arange(10)})
        >>> points, labels = projection.points()
        >>> points.shape, labels.shape
        (torch.Size([10, 2]), torch.Size([10]))
    """

    def __init__(self) -> None:
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, outputs: Any) -> None:
        """Add the outputs of a step; no effect without features and labels."""
        entries = outputs if isinstance(outputs, dict) else {}
        features, labels = entries.get("features"), entries.get("labels")
        if isinstance(features, Tensor) and isinstance(labels, Tensor) and sum(map(len, self._labels)) < MAX_SAMPLES:
            self._features.append(features.detach().flatten(1).float().cpu())
            self._labels.append(labels.cpu())

    def points(self) -> tuple[Tensor, Tensor] | None:
        """(N, 2) coordinates and (N,) labels; None without features or if any is infinite or NaN."""
        if not self._features:
            return None
        features = torch.cat(self._features)[:MAX_SAMPLES]
        if not bool(torch.isfinite(features).all()):
            return None
        return _principal_components(features), torch.cat(self._labels)[:MAX_SAMPLES]


def _principal_components(features: Tensor, count: int = 2) -> Tensor:
    """(N, count) coordinates of (N, D) features along their first principal components."""
    centered = (features - features.mean(dim=0)).double()
    left, values, _ = torch.linalg.svd(centered, full_matrices=False)
    components: Tensor = (left * values)[:, :count]
    return components.float()
