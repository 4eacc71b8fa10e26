"""Replay: the rows of training batches by the network as it is now, in evaluation mode."""

from collections.abc import Callable
from typing import Any, final

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_mi.callbacks.watch.layers import LayerRecorder
from lightning_mi.callbacks.watch.samples import map_tensors
from lightning_mi.callbacks.watch.sources import Source, Step, find_entry
from lightning_mi.exceptions import MIWarning, WatchError
from lightning_mi.utilities.evaluation_mode import evaluation_mode

Forward = Callable[[L.LightningModule, Any], Any]
_TOLERANCE = 1e-2  # relative: half precision and other kernels differ by less


@final
class Replay:
    """Runs the network on training batches again and records the watched layers.

    Rows that were recorded in training would be of many networks, one for each step, and in training mode. Probes that
    are fitted to such rows read up to half a nat too little in the first epochs.

    Args:
        forward: ``forward(pl_module, batch)`` runs the layers, without any other effect.
        recorder: Of the layers.
    """

    def __init__(self, forward: Forward, recorder: LayerRecorder) -> None:
        self._forward, self._recorder = forward, recorder

    def step(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> Step:
        """The step of one batch, without outputs. RNG states and training modes are restored."""
        batch = map_tensors(batch, lambda tensor: tensor.to(pl_module.device))
        precision = trainer.precision_plugin.forward_context()
        with (
            isolated_rng(),
            self._recorder.alone(),
            self._recorder,
            evaluation_mode(pl_module),
            torch.no_grad(),
            precision,
        ):
            self._forward(pl_module, batch)
            return Step(self._recorder.take(), batch, None)


def find_forward(pl_module: L.LightningModule, forward: Forward | None, source: Source) -> Forward | None:
    """The forward pass to replay: the given one, or that of the module on the batch's input; None without one.

    Args:
        pl_module: The module.
        forward: The argument of the callback.
        source: The input.
    """
    if forward is not None:
        return forward
    if not is_overridden("forward", pl_module, L.LightningModule):
        return None
    return lambda module, batch: _forward(module, find_entry(batch, source.key, source.name))


def _forward(module: L.LightningModule, batch_input: Any) -> Any:
    try:
        return module(batch_input)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise WatchError(
            f"The forward of {type(module).__name__} failed on the batch's input alone: {type(error).__name__}: "
            f"{error}. Name the entry by input=, or pass forward=lambda module, batch: ..., which runs the layers as "
            "a step does, such as module(batch)."
        ) from error


def warn_of_other_rows(step: Step, replays: tuple[Step, Step], pl_module: L.LightningModule) -> None:
    """Warn if a validation step and the replay of its batch have other rows, but not for a random layer.

    Args:
        step: The validation step.
        replays: Two replays of its batch, with other random numbers.
        pl_module: The module.

    Warns:
        MIWarning: The rows of a layer differ.
    """
    replayed, again = replays
    for path, rows in step.layers.items():
        other = replayed.layers[path]
        if _same(rows, other) or not bool(rows.isfinite().all()) or not _same(other, again.layers[path]):
            continue
        rank_zero_warn(
            f"Layer {path!r} differs between validation_step and the forward of {type(pl_module).__name__} on the same "
            "batch: probes are fitted to other activations than they are read on. Pass "
            "forward=lambda module, batch: ..., which computes what validation_step computes.",
            category=MIWarning,
        )
        return


def _same(rows: Tensor, other: Tensor) -> bool:
    return rows.shape == other.shape and bool((rows - other).abs().mean() <= _TOLERANCE * rows.abs().mean())


def isolated_rng() -> Any:
    """Context manager: restores the RNG states of Python, NumPy and torch; of CUDA only if it is in use."""
    return isolate_rng(include_cuda=torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
