"""What the probes share: labelled features, kept until they are judged."""

import warnings
from abc import ABC
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, final

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.utilities.labels import check_labels

_NOTHING = {
    "features": torch.empty(0, 0),
    "labels": torch.empty(0, dtype=torch.long),
    "reference_features": torch.empty(0, 0),
    "reference_labels": torch.empty(0, dtype=torch.long),
}


class AbstractFeatureMetric(Metric, ABC):
    """A metric that judges features by labelled reference features, both kept whole in float32.

    The states are lists that are concatenated over batches and, once, over processes; a process may hold any number of
    samples, none included. Every process computes the result.

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
        for name in _NOTHING:
            self.add_state(name, [], dist_reduce_fx="cat")

    @final
    def update(self, features: Tensor, labels: Tensor, reference: bool = False) -> None:
        """Take in one batch.

        Args:
            features: (N, D) floating-point.
            labels: (N,) integers.
            reference: Whether these are the features to judge by, of training samples, and not those that are judged.

        Raises:
            TypeError: The labels are not integers.
            ValueError: A shape is wrong, or D is not that of the batches before.
        """
        taker = type(self).__name__
        check_features(features, labels, taker)
        kept = self.reference_features if reference else self.features
        if kept and kept[0].shape[1] != features.shape[1]:
            raise ValueError(
                f"{taker} got features of width {features.shape[1]} after {kept[0].shape[1]}: all come from one "
                "encoder. Call `reset` between encoders."
            )
        kept.append(features.detach().float())
        (self.reference_labels if reference else self.labels).append(labels.detach().long())

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """A batch has no accuracy of its own, since it does not bring the reference features: not available."""
        raise TypeError(
            f"{type(self).__name__} judges all features at once, so it has no value for a batch. "
            "Call `update` for each batch and `compute` at the end."
        )

    @final
    def gathered(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, labels, reference features and reference labels of all batches; all processes' in ``compute``."""
        features, labels, reference_features, reference_labels = (self._whole(name) for name in _NOTHING)
        return features, labels, reference_features, reference_labels

    def _whole(self, name: str) -> Tensor:
        parts: list[Tensor] = [part for part in getattr(self, name) if len(part) > 0]
        widths = sorted({part.shape[1] for part in parts if part.ndim == 2})
        if len(widths) > 1:
            raise ValueError(f"{type(self).__name__} got `{name}` of widths {widths}: all come from one encoder.")
        return torch.cat(parts) if parts else _NOTHING[name].to(self.device)

    def _sync_dist(
        self, dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors, process_group: Any = None
    ) -> None:
        # torchmetrics gathers a one-dimensional float for a process without samples, and gloo waits for ever for a
        # shape or type that the others do not have.
        for name in _NOTHING:
            setattr(self, name, dist_sync_fn(self._whole(name), group=process_group or self.process_group))

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        # The states follow the device but never the type, which must be the same in all processes.
        super()._apply(fn, exclude_state=(*exclude_state, *_NOTHING))
        for name in _NOTHING:
            setattr(self, name, [part.to(self.device) for part in getattr(self, name)])
        return self


def check_features(features: Tensor, labels: Tensor, taker: str) -> None:
    """Refuse what are not features with their labels.

    Raises:
        TypeError: The labels are not integers.
        ValueError: A shape or the features' type is wrong, or a label is negative.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"{taker} got features of shape {tuple(features.shape)} and type {str(features.dtype)[6:]}: it takes "
            "floating-point numbers of shape (N, D), one row a sample. Flatten them with .flatten(1)."
        )
    check_labels(labels, len(features), taker)


def can_be_judged(
    features: Tensor, labels: Tensor, reference_features: Tensor, reference_labels: Tensor, taker: str
) -> bool:
    """Whether the features have an accuracy: not if a value is infinite or not a number.

    Raises:
        TypeError: Labels are not integers.
        ValueError: There are no features or no reference features, they differ in width, the reference labels are of
            a single class, or no label is among them.

    Warns:
        MINumericalWarning: A value is infinite or not a number.
    """
    if len(reference_features) == 0:
        raise ValueError(f"{taker} has no reference features. Give it training samples with `reference=True` first.")
    if len(features) == 0:
        raise ValueError(f"{taker} has no features to judge. Give it held-out samples.")
    check_features(features, labels, taker)
    check_features(reference_features, reference_labels, taker)
    if features.shape[1] != reference_features.shape[1]:
        raise ValueError(
            f"{taker} got features of width {features.shape[1]} and reference features of width "
            f"{reference_features.shape[1]}: both come from one encoder."
        )
    if bool((reference_labels == reference_labels[0]).all()):
        raise ValueError(
            f"{taker} got reference features of a single class, {int(reference_labels[0])}: there is nothing to tell "
            "apart. Check the labels, and that the reference samples are not one sorted part of the data."
        )
    if not bool(torch.isin(labels, reference_labels).any()):
        raise ValueError(
            f"{taker} got labels {torch.unique(labels).tolist()[:5]} and reference labels "
            f"{torch.unique(reference_labels).tolist()[:5]}, without one in common: no sample can be judged right. "
            "Number the classes of both splits alike."
        )
    bad = sum(int((~torch.isfinite(values)).any(dim=1).sum()) for values in (features, reference_features))
    if bad:
        warnings.warn(
            f"{taker} is NaN: {bad} of {len(features) + len(reference_features)} samples have features that are "
            "infinite or not a number. Check the data, and whether the encoder has diverged.",
            MINumericalWarning,
            stacklevel=3,
        )
    return not bad
