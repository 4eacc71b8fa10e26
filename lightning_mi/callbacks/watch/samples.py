"""Recent training batches, held-out rows, and rows over all ranks."""

from collections.abc import Callable
from typing import Any, final

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_mi.exceptions import MIWarning
from lightning_mi.scores.batch_shard import shard_of
from lightning_mi.utilities.distributed import all_gather_ints

_PLAIN = (str, int, float, bool, type(None))
_MAX_CLASSES = 100  # more distinct whole numbers are counts


@final
class RecentBatches:
    """The training batches since the last reading: the newest, by reference.

    Example:
        >>> import torch
        >>> recent = RecentBatches()
        >>> for _ in range(4):
        ...     recent.append(torch.zeros(3, 2), num_samples=5)
        >>> len(recent.batches)
        2
    """

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self._sizes: list[int] = []

    def append(self, batch: Any, num_samples: int) -> None:
        """Add a batch; drop the oldest while the others hold ``num_samples`` samples."""
        self.batches.append(batch)
        self._sizes.append(_size(batch))
        while sum(self._sizes) - self._sizes[0] >= num_samples:
            del self.batches[0], self._sizes[0]

    def clear(self) -> None:
        """Drop all batches."""
        self.batches, self._sizes = [], []

    def state(self) -> list[Any] | None:
        """The batches on the CPU; None if one holds anything but tensors and plain values in dicts, lists, tuples."""
        if not all(map(_is_plain, self.batches)):
            return None
        return [map_tensors(batch, lambda tensor: tensor.cpu().clone()) for batch in self.batches]

    def load(self, batches: list[Any]) -> None:
        """Restore the result of :meth:`state`."""
        self.batches, self._sizes = list(batches), [_size(batch) for batch in batches]


def map_tensors(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A batch with a function applied to each tensor in its dicts, lists and tuples; other objects as they are.

    Example:
        >>> import torch
        >>> map_tensors({"x": [torch.ones(1)], "name": "a"}, lambda tensor: 2 * tensor)
        {'x': [tensor([2.])], 'name': 'a'}
    """
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, dict):
        return {key: map_tensors(value, function) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(map_tensors(value, function) for value in batch)
    return batch


def gather_rows(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of all ranks, in rank order: every rank must call it, with tensors of equal length.

    Example:
        >>> import torch
        >>> gather_rows({"x": torch.zeros(2, 3)})["x"].shape
        torch.Size([2, 3])
    """
    tensors = list(rows.values())
    counts = all_gather_ints([len(tensors[0])], tensors[0].device)
    gathered = shard_of([count for (count,) in counts]).gather_all(*tensors)
    return {name: tensor.detach() for name, tensor in zip(rows, gathered, strict=True)}


def evenly_spaced(rows: Tensor, most: int) -> Tensor:
    """At most so many rows, evenly spaced.

    Example:
        >>> import torch
        >>> evenly_spaced(torch.arange(10), 4)
        tensor([0, 3, 6, 9])
    """
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).long()]


def warn_of_rows(rows: dict[str, Tensor], kind: str) -> None:
    """Warn of what makes a reading NaN, and of labels that would be read as numbers.

    Args:
        rows: (N, D) numbers, or labels (N,), by the names of their variables.
        kind: Of samples, for the message.

    Warns:
        MIWarning: Rows are not finite; or the only column of a variable holds few whole numbers.

    Example:
        >>> import torch
        >>> warn_of_rows({"a": torch.randn(10, 2), "label": torch.arange(10)}, "held-out")
    """
    for name, values in rows.items():
        if not values.is_floating_point():
            continue
        if bad := len(values) - int(values.isfinite().all(dim=1).sum()):
            rank_zero_warn(
                f"Got {bad} of {len(values)} {kind} samples of {name} that are not finite: its readings are NaN. "
                "Check the data, or the network.",
                category=MIWarning,
            )
        elif values.shape[1] == 1 and _holds_few_whole_numbers(values):
            rank_zero_warn(
                f"Got whole numbers as floating-point for {name}: they are read as numbers. Labels are integers: write "
                ".long() in the data set.",
                category=MIWarning,
            )


def _holds_few_whole_numbers(values: Tensor) -> bool:
    return bool((values == values.round()).all()) and len(torch.unique(values)) <= _MAX_CLASSES


def _size(batch: Any) -> int:
    """The length of the first tensor in a batch; 1 without one."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    values = batch.values() if isinstance(batch, dict) else batch
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        values = getattr(batch, "__dict__", {}).values()
    for value in values:
        if isinstance(value, Tensor) and value.ndim:
            return len(value)
        if isinstance(value, dict | list | tuple) and (size := _size(value)) > 1:
            return size
    return 1


def _is_plain(batch: Any) -> bool:
    if isinstance(batch, dict):
        return all(map(_is_plain, batch.values()))
    if type(batch) in (list, tuple):
        return all(map(_is_plain, batch))
    return isinstance(batch, Tensor) or type(batch) in _PLAIN
