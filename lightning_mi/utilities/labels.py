"""Class labels: their place in a batch, and checks of their values."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_mi.utilities.protocols import HasNumClasses

NEGATIVE_LABEL = (
    "class labels are at least 0. A negative label often means an unlabelled sample, which belongs to no class. Drop "
    "the samples without a label, or number the classes from 0."
)


class LabelledViews(NamedTuple):
    """A batch, split into views and labels.

    Attributes:
        views: The entries that are encoded.
        labels: (N,) integers, or None if the batch has none.
        surplus: All other entries; a pairing raises an error for them.
    """

    views: list[Any]
    labels: Tensor | None
    surplus: list[Any]


def split_labels(entries: Sequence[Any], num_views: int | None) -> LabelledViews:
    """Split a batch into views and labels: exactly one entry after the views, integers of shape (N,).

    Args:
        entries: The entries of a batch, in order.
        num_views: The number of leading entries that are views; None if all entries are views.

    Example:
        >>> split_labels([torch.zeros(2, 3), torch.tensor([0, 1])], num_views=1).labels
        tensor([0, 1])
        >>> split_labels([torch.zeros(2, 3), torch.tensor([0, 1])], num_views=2).labels is None
        True
    """
    entries = list(entries)
    if num_views is None:
        return LabelledViews(entries, None, [])
    views, rest = entries[:num_views], entries[num_views:]
    if len(rest) == 1 and is_labels(rest[0]):
        return LabelledViews(views, rest[0], [])
    return LabelledViews(views, None, rest)


def is_labels(entry: Any) -> bool:
    """Whether an entry of a batch can be class labels: a one-dimensional tensor of integers.

    Example:
        >>> is_labels(torch.tensor([3, 1])), is_labels(torch.tensor([3.0, 1.0]))
        (True, False)
    """
    return isinstance(entry, Tensor) and entry.ndim == 1 and _holds_integers(entry)


def missing_labels(entries: Sequence[Any], num_views: int | None, consumer: str) -> TypeError:
    """The error for a batch without the labels that ``consumer`` needs.

    Example:
        >>> print(missing_labels([torch.zeros(2, 3), torch.zeros(2)], 1, "SameLabel"))
        SameLabel needs labels, but the batch holds float32 (2, 3), float32 (2,): labels are one more entry, integers
        of shape (N,), after the first. Add them to the batch, or override `unpack_batch` to return them.
    """
    found = ", ".join(
        f"{str(e.dtype)[6:]} {tuple(e.shape)}" if isinstance(e, Tensor) else type(e).__name__ for e in entries
    )
    if num_views is None:
        where = "but for this pairing every entry is a view: declare its `num_views`"
    else:
        where = "after the first" if num_views == 1 else f"after the {num_views} views"
    return TypeError(
        f"{consumer} needs labels, but the batch holds {found or 'nothing'}: labels are one more entry, integers of "
        f"shape (N,), {where}. Add them to the batch, or override `unpack_batch` to return them."
    )


def check_labels(labels: object, num_samples: int, consumer: str, num_classes: int | None = None) -> Tensor:
    """The class labels of ``num_samples`` samples, as int64. One host-device sync.

    Args:
        labels: The labels of a batch.
        num_samples: N.
        consumer: The object that needs them, for the message.
        num_classes: C, if labels are 0 to C - 1; by default any non-negative label is valid.

    Raises:
        TypeError: The labels are not a tensor of integers.
        ValueError: Their shape is not (N,), or a label is negative or not below ``num_classes``.

    Example:
        >>> check_labels(torch.tensor([0, -1]), 2, "SameLabel")
        Traceback (most recent call last):
        ValueError: SameLabel got label -1 at position 1: class labels are at least 0. A negative label often means ...
        >>> check_labels(torch.tensor([0.0, 1.0]), 2, "NearestNeighborAccuracy")
        Traceback (most recent call last):
        TypeError: NearestNeighborAccuracy got labels of type float32: class labels are integers. Convert them with ...
    """
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"{consumer} got labels of type {type(labels).__name__}: class labels are a tensor of integers, one for "
            "each sample. Add them to the batch, or override `unpack_batch` to return them last."
        )
    if not _holds_integers(labels):
        raise TypeError(
            f"{consumer} got labels of type {str(labels.dtype)[6:]}: class labels are integers. "
            "Convert them with .long() if they are class indices, or with .argmax(dim=1) if they are one-hot vectors."
        )
    if labels.shape != (num_samples,):
        raise ValueError(
            f"{consumer} got labels of shape {tuple(labels.shape)} for {num_samples} samples: there is one label for "
            f"each, so the shape is ({num_samples},)."
        )
    labels = labels.long()
    outside = labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)
    if bool(outside.any()):
        position = int(outside.nonzero()[0, 0])
        label = int(labels[position])
        if label < 0 or num_classes is None:
            raise ValueError(f"{consumer} got label {label} at position {position}: {NEGATIVE_LABEL}")
        raise ValueError(
            f"{consumer} got label {label} at position {position}: its {num_classes} labels are 0 to "
            f"{num_classes - 1}. Set `num_classes` to the number of classes, or number the labels from 0."
        )
    return labels


def check_num_classes(parts: Iterable[object], data: object) -> None:
    """Check that parts of a module have the data's number of classes, if both declare one.

    Args:
        parts: Parts that may have ``num_classes``.
        data: A data module that may have ``num_classes``.

    Raises:
        ValueError: The numbers differ.
    """
    if not isinstance(data, HasNumClasses):
        return
    for part in parts:
        if isinstance(part, HasNumClasses) and part.num_classes != data.num_classes:
            raise ValueError(
                f"Got {type(part).__name__} with num_classes={part.num_classes} for {type(data).__name__} with "
                f"num_classes={data.num_classes}. Set num_classes={data.num_classes}, or choose other data."
            )


def _holds_integers(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def entropy(frequencies: Tensor) -> float:
    """Entropy H(Y) in nats of class probabilities (C,).

    Example:
        >>> entropy(torch.tensor([0.5, 0.0, 0.5]))
        0.6931
    """
    return -float(torch.special.xlogy(frequencies.double(), frequencies.double()).sum())
