"""A map of features: the first samples of a stage, in two dimensions."""

from typing import Any, final

import torch
from torch import Tensor

MAP_SAMPLES = 1000


@final
class FeatureMap:
    """Collects the features and labels of the first ``MAP_SAMPLES`` samples of a stage on this process.

    Example:
        >>> feature_map = FeatureMap()
        >>> feature_map.add({"features": torch.randn(10, 5), "labels": torch.arange(10)})
        >>> points, labels = feature_map.points()
        >>> points.shape, labels.shape
        (torch.Size([10, 2]), torch.Size([10]))
    """

    def __init__(self) -> None:
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, outputs: Any) -> None:
        """Take in what a step returned; without features and labels there is nothing to take."""
        found = outputs if isinstance(outputs, dict) else {}
        features, labels = found.get("features"), found.get("labels")
        if isinstance(features, Tensor) and isinstance(labels, Tensor) and sum(map(len, self._labels)) < MAP_SAMPLES:
            self._features.append(features.detach().flatten(1).float().cpu())
            self._labels.append(labels.cpu())

    def points(self) -> tuple[Tensor, Tensor] | None:
        """(N, 2) coordinates and (N,) labels; None if there are no features or some are infinite or not a number."""
        if not self._features:
            return None
        features = torch.cat(self._features)[:MAP_SAMPLES]
        if not bool(torch.isfinite(features).all()):
            return None
        return _principal_components(features), torch.cat(self._labels)[:MAP_SAMPLES]


def _principal_components(features: Tensor, count: int = 2) -> Tensor:
    """(N, count) coordinates of (N, D) features along the directions of their largest variance."""
    centered = (features - features.mean(dim=0)).double()
    left, values, _ = torch.linalg.svd(centered, full_matrices=False)
    components: Tensor = (left * values)[:, :count]
    return components.float()
