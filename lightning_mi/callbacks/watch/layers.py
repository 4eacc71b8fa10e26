"""Find layers by path or pattern, and record their outputs by forward hooks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Literal, final
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_mi._compat.torch_names import WRAPPER_SEGMENT
from lightning_mi.exceptions import WatchError

Reduction = Literal["mean", "flatten"] | Callable[[Any], Tensor]
_ATTACHED: "WeakSet[LayerRecorder]" = WeakSet()


def find_layers(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """The submodules that match paths or patterns, by path, in the order of the patterns.

    In a pattern, ``*`` and ``?`` match within one segment of the path: ``"net.*"`` matches ``net.0`` but not
    ``net.0.conv``. The segment that ``torch.compile(submodule)`` adds to a path is left out.

    Args:
        module: The module.
        patterns: Paths as in ``named_modules()``, or patterns.

    Raises:
        WatchError: A path does not exist, or a pattern matches nothing.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> list(find_layers(network, ["1", "*"]))
        ['1', '0']
        >>> find_layers(nn.ModuleDict({"encoder": network}), ["encoder.2"])
        Traceback (most recent call last):
        lightning_mi.exceptions.WatchError: Got layer 'encoder.2': ModuleDict has no submodule of this name. Did you ...
    """
    named = {_without_wrappers(path): layer for path, layer in module.named_modules() if path}
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        matches = [path for path in named if _matches(path, pattern)]
        if not matches:
            raise WatchError(_not_found(pattern, list(named), type(module).__name__))
        found |= {path: named[path] for path in matches}
    return found


def is_pattern(text: str) -> bool:
    """Whether a text is a pattern of paths, and no path.

    Example:
        >>> is_pattern("net.*"), is_pattern("net.0")
        (True, False)
    """
    return any(character in text for character in "*?[")


def _without_wrappers(path: str) -> str:
    return ".".join(segment for segment in path.split(".") if segment != WRAPPER_SEGMENT)


def _matches(path: str, pattern: str) -> bool:
    segments, patterns = path.split("."), pattern.split(".")
    return len(segments) == len(patterns) and all(map(fnmatchcase, segments, patterns))


def _not_found(pattern: str, paths: list[str], owner: str) -> str:
    if is_pattern(pattern):
        return (
            f"Got the pattern {pattern!r}: it matches no submodule of {owner}. `*` matches within one segment of a "
            f"path. {owner} has: {_listed(paths)}."
        )
    close = get_close_matches(pattern, paths, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"It has: {_listed(paths)}."
    return f'Got layer {pattern!r}: {owner} has no submodule of this name. {hint} An entry of the batch is "batch.KEY".'


def _listed(paths: list[str], most: int = 12) -> str:
    return ", ".join(paths[:most]) + (f" and {len(paths) - most} more" if len(paths) > most else "") or "none"


def reduce_rows(output: Any, reduction: Reduction) -> Tensor:
    """(N, D) rows of a layer's output.

    Args:
        output: (N, ...); anything that a function takes.
        reduction: ``"mean"`` averages maps (N, C, H, W) and volumes over space, and sequences (N, T, D) over T;
            ``"flatten"`` keeps all; or a function.

    Example:
        >>> maps = torch.zeros(2, 3, 8, 8)
        >>> reduce_rows(maps, "mean").shape, reduce_rows(maps, "flatten").shape
        (torch.Size([2, 3]), torch.Size([2, 192]))
    """
    if callable(reduction):
        output = reduction(output)
    if not isinstance(output, Tensor):
        entries = f" of {len(output)} entries" if isinstance(output, tuple | list | dict) else ""
        raise WatchError(
            f"Got a {type(output).__name__}{entries}: a watched layer returns one tensor. Watch a layer inside it or "
            "around it that does, or pass a function, such as reduction=lambda output: output[0].mean(dim=1)."
        )
    if reduction == "mean" and output.ndim > 2:
        output = output.mean(dim=1 if output.ndim == 3 else tuple(range(2, output.ndim)), dtype=torch.float32)
    if output.ndim == 0:
        raise WatchError("Got a scalar: it has no row for each sample. Watch another layer.")
    rows: Tensor = output.reshape(len(output), -1)
    return rows


@final
class LayerRecorder:
    """Records the reduced outputs of layers in one step, by default without gradient.

    It is a context manager that adds the hooks and removes them. The rows are copies: a later layer may work in place.

    Args:
        layers: By path.
        reduction: How an output becomes rows (N, D).
        detach: Record without gradient.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with LayerRecorder(find_layers(network, ["1"])) as recorder:
        ...     _ = network(torch.ones(5, 2))
        ...     rows = recorder.take()
        >>> rows["1"].shape
        torch.Size([5, 3])
    """

    def __init__(self, layers: Mapping[str, nn.Module], reduction: Reduction = "mean", *, detach: bool = True) -> None:
        self._layers, self._reduction, self._detach = dict(layers), reduction, detach
        self._handles: list[RemovableHandle] = []
        self._rows: dict[str, Tensor] = {}

    def __enter__(self) -> "LayerRecorder":
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def attach(self) -> None:
        """Add the hooks."""
        self._handles = [layer.register_forward_hook(self._hook(path)) for path, layer in self._layers.items()]
        _ATTACHED.add(self)

    def detach(self) -> None:
        """Remove the hooks; drop what was recorded."""
        self._pause()
        self._rows = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Context manager: the recorders of other callbacks record nothing, and keep what they have recorded."""
        others = [recorder for recorder in _ATTACHED if recorder is not self]
        for recorder in others:
            recorder._pause()
        try:
            yield
        finally:
            for recorder in others:
                recorder.attach()

    def _pause(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        _ATTACHED.discard(self)

    def clear(self) -> None:
        """Drop what was recorded."""
        self._rows = {}

    def take(self) -> dict[str, Tensor]:
        """The rows of each layer, (N, D) float32, since the last call.

        Raises:
            WatchError: A layer did not run.
        """
        rows, self._rows = self._rows, {}
        for path, layer in self._layers.items():
            if path not in rows:
                raise WatchError(
                    f"Got no output of layer {path!r} ({type(layer).__name__}): its forward did not run in the step. "
                    "Watch a layer that every step calls as a module. A layer within a module that torch.compile had "
                    "compiled before this fit does not run either: watch the compiled module, or compile after the "
                    "start of the fit."
                )
        return rows

    def _hook(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(layer: nn.Module, inputs: Any, output: Any) -> None:
            del inputs
            if path in self._rows:
                raise WatchError(
                    f"Got two outputs of layer {path!r} ({type(layer).__name__}) in one step: which one to watch is "
                    "ambiguous. Watch a layer that runs once, such as the block around it."
                )
            try:
                with torch.set_grad_enabled(torch.is_grad_enabled() and not self._detach):
                    rows = reduce_rows(output, self._reduction)
            except WatchError as error:
                raise WatchError(f"Layer {path!r} ({type(layer).__name__}): {error}") from None
            self._rows[path] = (rows.detach() if self._detach else rows).float().clone()

        return record
