"""Base class of the probes: labelled features of all batches."""

import warnings
from abc import ABC
from typing import Any, NoReturn, final

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_mi._compat.torch_names import KeepsPrecision
from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.utilities.distributed import world_size
from lightning_mi.utilities.labels import check_labels

_EMPTY = {
    "features": torch.empty(0, 0),
    "labels": torch.empty(0, dtype=torch.long),
    "reference_features": torch.empty(0, 0),
    "reference_labels": torch.empty(0, dtype=torch.long),
}


class AbstractFeatureMetric(KeepsPrecision, Metric, ABC):
    """A metric of features and labelled reference features, all stored in float32.

    The states are lists of batches. ``compute`` all-gathers them; a rank may have any number of samples, or none. Every
    rank computes the result.

    Args:
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    higher_is_better: bool = True

    features: list[Tensor]
    labels: list[Tensor]
    reference_features: list[Tensor]
    reference_labels: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in _EMPTY:
            self.add_state(name, [], dist_reduce_fx=None)  # stays a list of batches after the all-gather

    @final
    def update(self, features: Tensor, labels: Tensor, reference: bool = False) -> None:
        """Add one batch.

        Args:
            features: (N, D) floating-point.
            labels: (N,) integers.
            reference: True for reference features (training samples), False for features to evaluate.

        Raises:
            TypeError: The labels are not integers.
            ValueError: A shape is wrong, or D differs from that of earlier batches.
        """
        metric = type(self).__name__
        check_features(features, labels, metric)
        earlier = self.reference_features if reference else self.features
        if earlier and earlier[0].shape[1] != features.shape[1]:
            raise ValueError(
                f"{metric} got features of width {features.shape[1]} after {earlier[0].shape[1]}: all features come "
                "from one encoder. Call `reset` between encoders."
            )
        earlier.append(features.detach().float())
        (self.reference_labels if reference else self.labels).append(labels.detach().long())

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not available: a single batch has no accuracy, because it has no reference features."""
        raise TypeError(
            f"{type(self).__name__} evaluates all features at once, so it has no value for a batch. "
            "Call `update` for each batch and `compute` at the end."
        )

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """All-gather the states; see :meth:`torchmetrics.Metric.sync`.

        torchmetrics gathers a one-dimensional float tensor for a rank without samples, but all ranks of an all-gather
        need the same dtype and number of dimensions. So each rank gathers one tensor a state, empty or not.
        """
        if world_size() > 1:
            for name in _EMPTY:
                setattr(self, name, [self._concatenated(name)])
        super().sync(*args, **kwargs)

    @final
    def gathered(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, labels, reference features and reference labels of all batches; in ``compute``, of all ranks."""
        features, labels, reference_features, reference_labels = (self._concatenated(name) for name in _EMPTY)
        return features, labels, reference_features, reference_labels

    def _concatenated(self, name: str) -> Tensor:
        parts: list[Tensor] = [part for part in getattr(self, name) if len(part) > 0]
        widths = sorted({part.shape[1] for part in parts if part.ndim == 2})
        if len(widths) > 1:
            raise ValueError(f"{type(self).__name__} got `{name}` of widths {widths}: all come from one encoder.")
        return torch.cat(parts) if parts else _EMPTY[name].to(self.device)


def check_features(features: Tensor, labels: Tensor, metric: str) -> None:
    """Check the types and shapes of features and their labels.

    Raises:
        TypeError: The labels are not integers.
        ValueError: A shape or the features' dtype is wrong, or a label is negative.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"{metric} got features of shape {tuple(features.shape)} and type {str(features.dtype)[6:]}: features are "
            "floating-point numbers of shape (N, D), one row per sample. Flatten them with .flatten(1)."
        )
    check_labels(labels, len(features), metric)


def check_finite_features(
    features: Tensor, labels: Tensor, reference_features: Tensor, reference_labels: Tensor, metric: str
) -> bool:
    """Check the inputs of an accuracy, and return whether all features are finite.

    Raises:
        TypeError: Labels are not integers.
        ValueError: There are no features or no reference features, they differ in width, the reference labels are all
            equal, or no label is a reference label.

    Warns:
        MINumericalWarning: A feature is infinite or NaN.
    """
    if len(reference_features) == 0:
        raise ValueError(f"{metric} has no reference features. First add training samples with `reference=True`.")
    if len(features) == 0:
        raise ValueError(f"{metric} has no features to evaluate. Add held-out samples.")
    check_features(features, labels, metric)
    check_features(reference_features, reference_labels, metric)
    if features.shape[1] != reference_features.shape[1]:
        raise ValueError(
            f"{metric} got features of width {features.shape[1]} and reference features of width "
            f"{reference_features.shape[1]}: both come from one encoder."
        )
    if bool((reference_labels == reference_labels[0]).all()):
        raise ValueError(
            f"{metric} got reference features of a single class, {int(reference_labels[0])}. Check the labels, and "
            "that the reference samples are not one sorted part of the data."
        )
    if not bool(torch.isin(labels, reference_labels).any()):
        raise ValueError(
            f"{metric} got labels {torch.unique(labels).tolist()[:5]} and reference labels "
            f"{torch.unique(reference_labels).tolist()[:5]} without a common one: the accuracy would be 0. Number the "
            "classes of both splits in the same way."
        )
    bad = sum(int((~torch.isfinite(values)).any(dim=1).sum()) for values in (features, reference_features))
    if bad:
        warnings.warn(
            f"{metric} is NaN: {bad} of {len(features) + len(reference_features)} samples have infinite or NaN "
            "features. Check the data, and whether the encoder has diverged.",
            MINumericalWarning,
            stacklevel=3,
        )
    return not bad
