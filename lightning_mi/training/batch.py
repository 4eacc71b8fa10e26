"""Views and labels of a batch, refused on all processes where one cannot learn from them."""

from collections.abc import Sequence
from typing import Any

import torch

from lightning_mi.pairs import AbstractPairing
from lightning_mi.training.online_probe import OnlineLinearProbe
from lightning_mi.utilities.distributed import raise_on_all_ranks, world_size
from lightning_mi.utilities.labels import LabelledViews, missing_labels, split_labels


def split_batch(
    entries: Sequence[Any],
    pairs: AbstractPairing,
    probe: OnlineLinearProbe | None,
    *,
    training: bool,
    device: torch.device,
) -> LabelledViews:
    """The views of a batch, and its labels where the pairing or the probe needs them.

    Args:
        entries: Of the batch, in order.
        pairs: Declares which of them are views, and whether it takes labels.
        probe: One that learns the labels in training.
        training: Whether all processes are at a batch; otherwise each looks at its own alone.
        device: Where the processes talk to each other.

    Raises:
        TypeError: There are no labels, or they are not integers.
        ValueError: A label is out of the probe's range, or another process refuses its batch.

    Example:
        >>> from lightning_mi.pairs import SameLabel
        >>> batch = [torch.zeros(2, 3), torch.tensor([0, 1])]
        >>> split_batch(batch, SameLabel(), None, training=False, device=torch.device("cpu")).labels
        tensor([0, 1])
    """
    batch = split_labels(entries, pairs.num_views)
    problem: Exception | None = None
    taker = pairs if pairs.takes_labels else probe
    if taker is None:
        return batch
    together = training and world_size() > 1
    if batch.labels is None:
        problem = missing_labels(entries, pairs.num_views, type(taker).__name__)
    elif probe is not None and together:  # alone, its loss says the same
        try:
            probe.check(batch.labels, len(batch.labels))
        except ValueError as found:
            problem = found
    if together:
        raise_on_all_ranks(problem, device)
    elif problem is not None:
        raise problem
    return batch
