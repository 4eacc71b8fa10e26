"""Which cells of a grid train together, in one process and on one stream of batches."""

import json
import math
from itertools import pairwise
from typing import Any

from lightning_mi.bench.grid import Cell

_STREAMS = ("lightning_mi.data.GaussianDataModule", "lightning_mi.data.OneHotDataModule")
_QUIET = ("ProgressBar", "Checkpoint", "EarlyStopping", "TensorBoardLayout")  # callbacks that change no training
_MOST = 16  # cells that train together, so that an interrupt does not lose too much
_SMALL = 5e7  # multiplications of a step's forward pass, which take about what a training's own loop takes


def shared(cells: list[Cell], jobs: int) -> list[list[Cell]]:
    """Put cells together that train on the same batches, where that saves time, but leave work for all processes.

    Args:
        cells: Of a grid.
        jobs: Processes at a time.

    Returns:
        All cells; those that train by themselves are alone.
    """
    classes: dict[str, list[Cell]] = {}
    for cell in cells:
        classes.setdefault(_stream(cell.config) or cell.name, []).append(cell)
    # In as many parts as there are processes only where there are fewer streams than that.
    parts = math.ceil(jobs / len(classes)) if classes else 1
    groups = []
    for same in classes.values():
        size = min(_MOST, math.ceil(len(same) / parts))
        groups += [same[i : i + size] for i in range(0, len(same), size)]
    return groups


def _stream(config: dict[str, Any]) -> str | None:
    """What cells that can train together have in common; None where one trains by itself."""
    trainer, model = config.get("trainer", {}), config["model"]
    callbacks = trainer.get("callbacks") or []
    if (
        config["data"]["class_path"] not in _STREAMS
        or model["class_path"] != "lightning_mi.MIEstimationModule"
        or trainer.get("devices", 1) != 1
        or not all(callback["class_path"].endswith(_QUIET) for callback in callbacks)
        or not _is_small(model["init_args"], config["data"].get("init_args", {}).get("batch_size", 64))
    ):
        return None
    return json.dumps(
        [trainer, config["data"], config.get("seed_everything"), model["init_args"].get("optimizer")], sort_keys=True
    )


def _is_small(model: dict[str, Any], batch_size: int) -> bool:
    critic = model["critic"]["init_args"]
    if "hidden" not in critic:
        return True
    every = model["critic"]["class_path"].endswith("JointCritic") and "IndependentMarginal" not in str(
        model.get("pairs")
    )
    rows = batch_size**2 if every else 2 * batch_size
    widths = [*critic["hidden"], 1]
    return bool(rows * sum(a * b for a, b in pairwise(widths)) < _SMALL)
