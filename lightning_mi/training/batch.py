"""Split a batch into views and labels; if validation fails on one rank, raise on all."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mi.pairs import AbstractPairing
from lightning_mi.training.online_probe import OnlineLinearProbe
from lightning_mi.utilities.distributed import raise_on_all_ranks, world_size
from lightning_mi.utilities.labels import LabelledViews, is_labels, missing_labels, split_labels


def split_batch(
    entries: Sequence[Any],
    pairs: AbstractPairing,
    probe: OnlineLinearProbe | None,
    *,
    labels_required: bool = True,
    training: bool,
    device: torch.device,
) -> LabelledViews:
    """Split a batch into views and labels, and check the labels that the pairing or the probe needs.

    Args:
        entries: The batch, in order.
        pairs: Declares the number of views and whether it takes labels.
        probe: A probe that trains on the labels; may be None.
        labels_required: Whether a pairing that takes labels needs them here; features need none.
        training: Whether all ranks are in a training step and raise together; otherwise only the rank with an error
            raises.
        device: Device of the collectives.

    Raises:
        TypeError: Labels are missing, or are not integers.
        ValueError: A label is out of the probe's range, or another rank rejected its shard of the batch.

    Example:
        >>> from lightning_mi.pairs import SameLabel
        >>> batch = [torch.zeros(2, 3), torch.tensor([0, 1])]
        >>> split_batch(batch, SameLabel(), None, training=False, device=torch.device("cpu")).labels
        tensor([0, 1])
    """
    batch = split_labels(entries, pairs.num_views)
    consumer = pairs if pairs.takes_labels else probe
    if consumer is None or not labels_required:
        return batch
    problem: Exception | None = None
    on_all_ranks = training and world_size() > 1
    if batch.labels is None:
        problem = missing_labels(entries, pairs.num_views, type(consumer).__name__)
    elif probe is not None and on_all_ranks:  # on one rank, the probe's loss raises the same error
        try:
            probe.check(batch.labels, len(batch.labels))
        except ValueError as error:
            problem = error
    if on_all_ranks:
        raise_on_all_ranks(problem, device)
    elif problem is not None:
        raise problem
    return batch


def not_a_tuple(batch: Any) -> TypeError:
    """The error for a batch that is neither a tuple nor a list of views.

    Example:
        >>> print(not_a_tuple({"image": 1, "caption": 2}))
        Got a batch of type dict with the keys 'image', 'caption': the views x and y are entries of a tuple or a list.
        Override `unpack_batch` to return them, such as: return batch['image'], batch['caption']
    """
    kind, example = type(batch).__name__, "return batch.x, batch.y"
    if isinstance(batch, Mapping):
        keys = [repr(key) for key in batch]
        kind += f" with the keys {', '.join(keys)}"
        example = "return " + ", ".join(f"batch[{key}]" for key in keys[:2])
    elif isinstance(batch, Tensor):
        kind += f" and shape {tuple(batch.shape)}"
        example = "return batch[:, :d], batch[:, d:]"
    return TypeError(
        f"Got a batch of type {kind}: the views x and y are entries of a tuple or a list. "
        f"Override `unpack_batch` to return them, such as: {example}"
    )


def check_entries(entries: Any, pairs: AbstractPairing, owner: str, tensors: bool) -> None:
    """Check the return value of ``unpack_batch``; the encoder checks the views themselves.

    Args:
        entries: The views, then labels and other entries.
        pairs: Declares the number of views.
        owner: The class that defines ``unpack_batch``.
        tensors: Whether a view is one tensor; otherwise a view may be a list of tensors.

    Raises:
        TypeError: The entries are not a tuple or a list, a view is None, or all views are nested in one entry.

    Example:
        >>> import torch
        >>> from lightning_mi.pairs import AllPairs
        >>> check_entries((torch.zeros(2, 3), None), AllPairs(), "MIEstimationModule", tensors=True)
        Traceback (most recent call last):
        TypeError: Got None as entry 1 of the batch: AllPairs takes it as a view. Override `unpack_batch` to ...
    """
    if not isinstance(entries, tuple | list):
        raise TypeError(
            f"Got a {type(entries).__name__} from `unpack_batch` of {owner}: it returns the views in a tuple or a "
            "list, x and y first."
        )
    for position, entry in enumerate(entries[: pairs.num_views]):
        if entry is None:
            raise TypeError(
                f"Got None as entry {position} of the batch: {type(pairs).__name__} takes it as a view. Override "
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
    """Whether entry 0 contains all views, of equal shape, and entry 1 the labels."""
    if len(entries) != 2 or num_views is None or num_views < 2 or not isinstance(entries[0], tuple | list):
        return False
    views, labels = entries
    tensors = len(views) > 1 and all(isinstance(view, Tensor) for view in views)
    return tensors and len({view.shape for view in views}) == 1 and is_labels(labels)
