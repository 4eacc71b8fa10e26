"""Class labels: what they look like, and where they are in a batch."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

NEGATIVE_LABEL = (
    "class labels are at least 0. A negative label often means an unlabelled sample, which belongs to no class. Drop "
    "the samples without a label, or number the classes from 0."
)


class LabelledViews(NamedTuple):
    """A batch, taken apart.

    Attributes:
        views: What is encoded.
        labels: (N,) integers, or None where the batch holds none.
        surplus: What else the batch holds; a pairing refuses it.
    """

    views: list[Any]
    labels: Tensor | None
    surplus: list[Any]


def split_labels(entries: Sequence[Any], num_views: int | None) -> LabelledViews:
    """Tell the labels of a batch from its views: exactly one entry after the views, of integers and of shape (N,).

    Args:
        entries: Of a batch, in order.
        num_views: How many leading entries are views; None if all are, so that there are no labels.

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
    """Whether an entry of a batch can be class labels: a tensor of integers in one dimension.

    Example:
        >>> is_labels(torch.tensor([3, 1])), is_labels(torch.tensor([3.0, 1.0]))
        (True, False)
    """
    return isinstance(entry, Tensor) and entry.ndim == 1 and _holds_integers(entry)


def missing_labels(entries: Sequence[Any], num_views: int | None, taker: str) -> TypeError:
    """The error for a batch without labels that ``taker`` cannot do without.

    Example:
        >>> print(missing_labels([torch.zeros(2, 3), torch.zeros(2)], 1, "SameLabel"))
        SameLabel needs labels, but the batch holds float32 (2, 3), float32 (2,): labels are one more entry, integers
        of shape (N,), after the first. Add them to the batch, or override `unpack_batch` to return them.
    """
    held = ", ".join(
        f"{str(e.dtype)[6:]} {tuple(e.shape)}" if isinstance(e, Tensor) else type(e).__name__ for e in entries
    )
    where = {
        None: "and this pairing takes every entry for a view: declare its `num_views`",
        1: "after the first",
    }.get(num_views, f"after the {num_views} views")
    return TypeError(
        f"{taker} needs labels, but the batch holds {held or 'nothing'}: labels are one more entry, integers of shape "
        f"(N,), {where}. Add them to the batch, or override `unpack_batch` to return them."
    )


def check_labels(labels: object, num_samples: int, taker: str, num_classes: int | None = None) -> Tensor:
    """The class labels of ``num_samples`` samples, as int64. One host-device sync.

    Args:
        labels: What the batch holds as labels.
        num_samples: N.
        taker: What takes them, for the message.
        num_classes: C, where labels run from 0 to C - 1; any label of at least 0 by default.

    Raises:
        TypeError: They are not a tensor of integers.
        ValueError: They are not of shape (N,), one is negative, or one is not below ``num_classes``.

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
            f"{taker} got labels of type {type(labels).__name__}: class labels are a tensor of integers, one for each "
            "sample. Add them to the batch, or override `unpack_batch` to return them last."
        )
    if not _holds_integers(labels):
        raise TypeError(
            f"{taker} got labels of type {str(labels.dtype)[6:]}: class labels are integers. "
            "Convert them with .long() if they are class indices, or with .argmax(dim=1) if they are one-hot vectors."
        )
    if labels.shape != (num_samples,):
        raise ValueError(
            f"{taker} got labels of shape {tuple(labels.shape)} for {num_samples} samples: there is one label for "
            f"each, so the shape is ({num_samples},)."
        )
    labels = labels.long()
    outside = labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)
    if bool(outside.any()):
        position = int(outside.nonzero()[0, 0])
        label = int(labels[position])
        if label < 0 or num_classes is None:
            raise ValueError(f"{taker} got label {label} at position {position}: {NEGATIVE_LABEL}")
        raise ValueError(
            f"{taker} got label {label} at position {position}: its {num_classes} labels are 0 to {num_classes - 1}. "
            "Set `num_classes` to the number of classes, or number the labels from 0."
        )
    return labels


def check_num_classes(parts: Iterable[object], data: object) -> None:
    """Refuse parts of a module that are made for another number of classes than the data has.

    Args:
        parts: Those without a ``num_classes`` are not looked at.
        data: Nothing is refused if it has no ``num_classes``.

    Raises:
        ValueError: Names both numbers.
    """
    held = getattr(data, "num_classes", None)
    for part in parts:
        own = getattr(part, "num_classes", None)
        if own is not None and held is not None and own != held:
            raise ValueError(
                f"{type(part).__name__} has num_classes={own}, but {type(data).__name__} has num_classes={held}. "
                f"Set num_classes={held}, or choose other data."
            )


def _holds_integers(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
