"""The grid of the benchmark of layer readings: a network for each seed."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from lightning_mi import __version__
from lightning_mi.bench.benchmark_file import read_preset, read_record, replaced_note
from lightning_mi.bench.cells import Grid
from lightning_mi.bench.plane.cell import LAYERS, METHODS, PlaneCell
from lightning_mi.exceptions import GridError


@final
@dataclass(frozen=True)
class Settings:
    """Settings of every training.

    Attributes:
        batch_size: N.
        learning_rate: Of Adam for the network.
        online_learning_rate: Of Adam for the online probes.
    """

    batch_size: int
    learning_rate: float
    online_learning_rate: float


@final
@dataclass(frozen=True)
class PlanePreset:
    """Scope of a run.

    Attributes:
        seeds: Seeds of split, weights and batches.
        epochs: Epochs, from 1, after which the layers are read. The last one ends the training.
        note: Differences from the preset ``paper``; empty if there are none.
    """

    seeds: list[int]
    epochs: list[int]
    note: str = ""


def load_plane_grid(path: Path, preset: str, seeds: list[int] | None = None) -> Grid[PlaneCell]:
    """Expand the benchmark of layer readings into its trainings.

    Args:
        path: The benchmark's YAML file.
        preset: One of its presets.
        seeds: Seeds that replace the preset's; None keeps them.

    Raises:
        GridError: If a preset or a key is unknown, or an epoch is below 1.

    Example:
        >>> from lightning_mi.utilities.recipe_registry import find_file
        >>> [cell.name for cell in load_plane_grid(find_file("plane", "benchmark").path, "paper", [0, 7]).cells]
        ['plane-seed0', 'plane-seed7']
    """
    document, chosen = read_preset(path, preset, PlanePreset, keys=["training"])
    settings = read_record(Settings, document["training"], path.name)
    if not chosen.epochs or min(chosen.epochs) < 1:
        raise GridError(f"Got epochs {chosen.epochs}: give at least one, counted from 1.")
    config = {"training": asdict(settings), "epochs": sorted(set(chosen.epochs)), "version": __version__}
    config |= {"methods": METHODS, "layers": LAYERS}
    cells = [PlaneCell(seed, config | {"seed": seed}) for seed in (chosen.seeds if seeds is None else seeds)]
    note = replaced_note(chosen.note, {"seeds": seeds})
    return Grid(path.stem, preset, note, document["report"], cells, reference="preset paper")
