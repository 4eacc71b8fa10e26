"""Check the entries of a batch before they are encoded."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_mi.pairs import AbstractPairing
from lightning_mi.utilities.labels import is_labels


def not_a_tuple(batch: Any) -> TypeError:
    """The error for a batch that is not a tuple or a list of views.

    Example:
        >>> print(not_a_tuple({"image": 1, "caption": 2}))
        Got a batch of type dict with the keys 'image', 'caption': the views x and y are taken from a tuple or a list.
        Override `unpack_batch` to return them, such as: return batch['image'], batch['caption']
    """
    what, example = type(batch).__name__, "return batch.x, batch.y"
    if isinstance(batch, Mapping):
        keys = [repr(key) for key in batch]
        what += f" with the keys {', '.join(keys)}"
        example = "return " + ", ".join(f"batch[{key}]" for key in keys[:2])
    elif isinstance(batch, Tensor):
        what += f" and shape {tuple(batch.shape)}"
        example = "return batch[:, :d], batch[:, d:]"
    return TypeError(
        f"Got a batch of type {what}: the views x and y are taken from a tuple or a list. "
        f"Override `unpack_batch` to return them, such as: {example}"
    )


def check_entries(entries: Any, pairs: AbstractPairing, owner: str, tensors: bool) -> None:
    """Check what ``unpack_batch`` returned. What an encoder takes is up to the encoder.

    Args:
        entries: The views, and what else the batch holds.
        pairs: Declares how many of them are views.
        owner: The class whose ``unpack_batch`` it was.
        tensors: Whether each view is a tensor for one encoder, or none; otherwise a view may be a list of tensors.

    Raises:
        TypeError: They are not a tuple or a list, a view is None, or the views are nested in one entry.

    Example:
        >>> import torch
        >>> from lightning_mi.pairs import AllPairs
        >>> check_entries((torch.zeros(2, 3), None), AllPairs(), "MIEstimationModule", tensors=True)
        Traceback (most recent call last):
        TypeError: Got None as entry 1 of the batch, which AllPairs takes for a view. Override `unpack_batch` to ...
    """
    if not isinstance(entries, tuple | list):
        raise TypeError(
            f"`unpack_batch` of {owner} returned a {type(entries).__name__}: it returns the views in a tuple or a "
            "list, x and y first."
        )
    for position, entry in enumerate(entries[: pairs.num_views]):
        if entry is None:
            raise TypeError(
                f"Got None as entry {position} of the batch, which {type(pairs).__name__} takes for a view. Override "
                "`unpack_batch` to return the views alone."
            )
    if tensors and _is_nested(entries, pairs.num_views):
        raise TypeError(
            f"Got a batch ((view 1, view 2), labels), the layout of an image folder with a transform that returns two "
            f"crops: entry 0 is a {type(entries[0]).__name__} of {len(entries[0])} tensors, entry 1 the labels. "
            f"{type(pairs).__name__} takes each view as an entry of its own. Override `unpack_batch`:\n\n"
            "    def unpack_batch(self, batch):\n"
            "        (x, y), labels = batch\n"
            "        return x, y, labels"
        )


def _is_nested(entries: Sequence[Any], num_views: int | None) -> bool:
    """Whether all views are in entry 0, alike in shape, and labels in entry 1."""
    if len(entries) != 2 or num_views is None or num_views < 2 or not isinstance(entries[0], tuple | list):
        return False
    views, labels = entries
    tensors = len(views) > 1 and all(isinstance(view, Tensor) for view in views)
    return tensors and len({view.shape for view in views}) == 1 and is_labels(labels)
