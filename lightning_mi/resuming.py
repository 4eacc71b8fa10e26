"""What a training that goes on needs besides Lightning's checkpoint: random streams and metrics that are half done."""

import random
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from torchmetrics import Metric

from lightning_mi.distributed import gather_objects


class InexactResumeWarning(UserWarning):
    """A training goes on from a checkpoint, but not as the uninterrupted one would have."""


def collect_state(trainer: L.Trainer, metrics: nn.Module) -> dict[str, Any]:
    """Of each process the random streams and the metrics, and what is not logged yet; plain data and tensors.

    All processes must call it. After an error, which may have struck one process alone, it tells of this one only.

    Example:
        >>> state = collect_state(L.Trainer(accelerator="cpu", logger=False), nn.ModuleList())
        >>> state["row"], [sorted(process) for process in state["processes"]]
        (None, [['metrics', 'random']])
    """
    own = {"random": random_state(), "metrics": state_of_metrics(metrics)}
    alone = trainer.interrupted and not trainer.received_sigterm
    return {"processes": [own] if alone else gather_objects(own), "row": _unwritten_row(trainer)}


def restore_state(trainer: L.Trainer, metrics: nn.Module, state: dict[str, Any]) -> None:
    """Put this process's state back, and log what was not.

    Warns:
        InexactResumeWarning: The checkpoint is of another number of processes; the random streams stay as they are.
    """
    if state["row"] is not None:
        for logger in trainer.loggers:
            logger.log_metrics(state["row"]["values"], state["row"]["step"])
    if len(state["processes"]) != trainer.world_size:
        rank_zero_warn(
            f"The checkpoint holds the random states of {len(state['processes'])} process(es), and there are "
            f"{trainer.world_size} now: weights and data go on where they were, but random numbers differ from an "
            "uninterrupted run's, and the training metrics of this epoch are those of its remaining batches.",
            category=InexactResumeWarning,
        )
        return
    own = state["processes"][trainer.global_rank]
    set_random_state(own["random"])
    restore_metrics(metrics, own["metrics"])


def random_state() -> dict[str, Any]:
    """Where the random streams of this process are: of torch, its device, NumPy and Python; plain data and tensors.

    Example:
        >>> state = random_state()
        >>> first = torch.rand(2)
        >>> set_random_state(state)
        >>> torch.equal(torch.rand(2), first)
        True
    """
    kind, keys, *rest = np.random.get_state()
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        # The stream of this process's device alone: processes of one machine see all of them.
        "torch.cuda": torch.cuda.get_rng_state().cpu() if torch.cuda.is_available() else None,
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "python": [version, list(words), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the random streams of this process where :func:`random_state` found them."""
    torch.set_rng_state(state["torch"].cpu())
    if state["torch.cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["torch.cuda"].cpu())
    np.random.set_state(tuple(state["numpy"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def _unwritten_row(trainer: L.Trainer) -> dict[str, Any] | None:
    """What the loggers are about to be given, since callbacks save just before.

    What they have been given is written out: the death of the process must not take along what was before the save.
    """
    for logger in trainer.loggers:
        logger.save()
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            logger.experiment.flush()
    if trainer.interrupted or not trainer.training or not trainer.loggers:
        return None
    logs, loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
    of_epoch = logs._first_loop_iter is None
    if not of_epoch and (loop._should_accumulate() or not logs.should_update_logs):
        return None
    values = convert_tensors_to_scalars(logs.metrics["log"]) | {"epoch": trainer.current_epoch}
    return {"values": values, "step": loop._batches_that_stepped - of_epoch}


def state_of_metrics(metrics: nn.Module) -> dict[str, dict[str, Any]]:
    """What the metrics have taken in so far, by their names."""
    return {
        name: {"updates": metric.update_count}
        | {key: value.detach().clone() for key in metric._defaults if torch.is_tensor(value := getattr(metric, key))}
        for name, metric in metrics.named_modules()
        if isinstance(metric, Metric)
    }


def restore_metrics(metrics: nn.Module, states: dict[str, dict[str, Any]]) -> None:
    """Put back what :func:`state_of_metrics` gave."""
    for name, metric in metrics.named_modules():
        if isinstance(metric, Metric) and name in states:
            state = dict(states[name])
            # Otherwise it would warn that it has seen nothing.
            metric._update_count = max(state.pop("updates"), metric.update_count)
            for key, value in state.items():
                setattr(metric, key, value.to(metric.device))
