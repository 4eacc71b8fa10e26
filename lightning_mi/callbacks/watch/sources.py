"""Sources of samples: a layer, an entry of the batch, or an entry of a step's outputs; and their rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.callbacks.watch.layers import is_pattern
from lightning_mi.exceptions import WatchError
from lightning_mi.utilities.labels import is_labels

Key = int | str | Callable[[Any], Any]
_LABEL_KEYS, _INPUT_KEYS = ("label", "labels", "y"), ("input", "inputs", "x")


class Step(NamedTuple):
    """What a step of the watched module had and made.

    Attributes:
        layers: (N, D) rows of each watched layer, by path.
        batch: The batch.
        outputs: The return value of the step; None in a forward pass without a step.
    """

    layers: dict[str, Tensor]
    batch: Any
    outputs: Any


@final
class Source(NamedTuple):
    """Where a variable comes from.

    Attributes:
        kind: A layer, an entry of the batch, or an entry of the outputs.
        key: The layer's path; or the entry's index, key or path of both; or a function of the batch or the outputs.
        name: For logs.
    """

    kind: Literal["layer", "batch", "outputs"]
    key: Key
    name: str

    def rows(self, step: Step) -> Tensor:
        """(N, D) float32, or labels (N,) int64, of a step.

        Raises:
            WatchError: There is no such entry, or it holds neither numbers nor labels.
        """
        if self.kind == "layer":
            return step.layers[str(self.key)]
        container = step.batch if self.kind == "batch" else step.outputs
        return entry_rows(find_entry(container, self.key, self.name), self.name)


def parse_source(text: str) -> Source:
    """A source from its name: ``"batch.KEY"``, ``"outputs.KEY"``, or the path of a layer.

    ``"batch"`` and ``"outputs"`` are a batch or outputs of one tensor.

    Raises:
        ValueError: It is a pattern of layers.

    Example:
        >>> parse_source("batch.caption").key, parse_source("net.0").kind
        ('caption', 'layer')
    """
    kind, _, key = text.partition(".")
    if kind in ("batch", "outputs"):
        return Source("batch" if kind == "batch" else "outputs", key or _whole, text)
    if is_pattern(text):
        raise ValueError(f"Got the pattern {text!r}: a variable is one layer. Write its path, as in named_modules().")
    return Source("layer", text, text)


def label_source(key: Key | None) -> Source:
    """The label of a batch: entry 1 of a tuple, or the key "label", "labels" or "y", unless a key is given."""
    return Source("batch", _default_key("label", 1, _LABEL_KEYS) if key is None else key, "label")


def input_source(key: Key | None) -> Source:
    """The network's input: entry 0 of a tuple, or the key "input", "inputs" or "x", unless a key is given."""
    return Source("batch", _default_key("input", 0, _INPUT_KEYS) if key is None else key, "input")


def find_entry(container: Any, key: Key, name: str) -> Any:
    """An entry of a batch or of outputs.

    Args:
        container: A tuple or list, a mapping, or an object with attributes, nested at will.
        key: An index, a key, a path such as ``"meta.0"``, or a function.
        name: For the error.

    Raises:
        WatchError: There is no such entry.

    Example:
        >>> find_entry({"meta": [4, 5]}, "meta.1", "batch.meta.1")
        5
        >>> find_entry({"x": 4}, "y", "label")
        Traceback (most recent call last):
        lightning_mi.exceptions.WatchError: Got no 'y' for label: a dict with the keys 'x'. Name an entry that exists.
    """
    if callable(key):
        return key(container)
    found = container
    for segment in str(key).split(".") if isinstance(key, str) else [key]:
        try:
            found = _step_into(found, segment)
        except (KeyError, IndexError, AttributeError, ValueError, TypeError):
            raise WatchError(f"Got no {segment!r} for {name}: {_held(found)}. Name an entry that exists.") from None
    return found


def entry_rows(entry: Any, name: str) -> Tensor:
    """(N, D) float32 rows of an entry of numbers, or (N,) int64 of labels.

    Example:
        >>> entry_rows(torch.zeros(4, 2, 3), "batch.0").shape
        torch.Size([4, 6])
    """
    if not isinstance(entry, Tensor) or entry.ndim == 0:
        raise WatchError(f"Got {_held(entry)} for {name}: it must be a tensor of one row for each sample.")
    if is_labels(entry) or (entry.dtype == torch.bool and entry.ndim == 1):
        labels: Tensor = entry.detach().long()
        if len(labels) and (lowest := int(labels.min())) < 0:
            raise WatchError(
                f"Got label {lowest} in {name}: labels run from 0. Map them to 0, 1, ..., and drop the samples without "
                "a label in the data loader."
            )
        return labels
    if not entry.is_floating_point() and entry.shape[1:].numel() == 1:
        raise WatchError(f"Got {_held(entry)} for {name}: labels have one dimension. Write .flatten() for labels.")
    if not entry.is_floating_point() and entry.dtype != torch.uint8:
        raise WatchError(
            f"Got {_held(entry)} for {name}: integers of several dimensions, such as tokens, are neither labels nor "
            "numbers. Watch the layer that embeds them."
        )
    rows: Tensor = entry.detach().reshape(len(entry), -1).float()
    return rows


def _whole(container: Any) -> Any:
    return container


def _default_key(what: str, index: int, keys: Sequence[str]) -> Callable[[Any], Any]:
    def find(batch: Any) -> Any:
        if isinstance(batch, Mapping):
            for key in keys:
                if key in batch:
                    return batch[key]
        elif isinstance(batch, Sequence) and len(batch) > index:
            return batch[index]
        elif isinstance(batch, Tensor) and index == 0:
            return batch
        raise WatchError(
            f"Got {_held(batch)} as batch: the {what} is entry {index} of a tuple, or the key "
            f"{', '.join(map(repr, keys))}. Pass {what}=, an index, a key or a function of the batch."
        )

    return find


def _step_into(container: Any, segment: int | str) -> Any:
    if isinstance(container, Mapping):
        return container[segment]
    if isinstance(container, Sequence) and not isinstance(container, str):
        if isinstance(segment, str) and not segment.lstrip("-").isdigit():
            return getattr(container, segment)  # a NamedTuple's field
        return container[int(segment)]
    return getattr(container, str(segment))


def _held(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, Mapping):
        return f"a {kind} with the keys {', '.join(map(repr, value)) or 'none'}"
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype)[6:]} {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {kind} of {len(value)} entries"
    return "nothing" if value is None else f"a value of type {kind}"
