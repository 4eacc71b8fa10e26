"""The cells of a benchmark's grid: what the pools run, store and resume."""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, final


class Interrupted(Exception):
    """The grid was stopped; this cell is not finished.

    Defined beside the cells, so that a process can unpickle it without importing torch.
    """


@dataclass(frozen=True)
class AbstractCell(ABC):
    """One run of a grid: a training, or an estimation. It can be pickled without importing torch.

    Attributes:
        seed: Seed of the run and of its data.
        config: Everything that determines the result, as JSON values.
        tracker: Name and group of an experiment tracker that also receives the logs, see
            :mod:`lightning_mi.bench.loggers`; not part of the configuration.
    """

    seed: int
    config: dict[str, Any] = field(repr=False)
    tracker: dict[str, str] | None = field(default=None, repr=False, compare=False, kw_only=True)

    @property
    @abstractmethod
    def kind(self) -> str:
        """The cell's name without its seed."""

    @property
    def name(self) -> str:
        """Unique name of the cell, and of its results folder."""
        return f"{self.kind}-seed{self.seed}"

    @property
    def digest(self) -> str:
        """Hash of the configuration. A finished run is reused only if its digest is equal."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:16]


CellT = TypeVar("CellT", bound=AbstractCell)


@final
@dataclass(frozen=True)
class Grid(Generic[CellT]):
    """A benchmark under one preset.

    Attributes:
        name: Name of the benchmark.
        preset: Name of the preset.
        note: Differences from the settings of the reference; empty if there are none.
        report: Kind of report: its tables and figures.
        cells: The runs.
        data: The data set, if the benchmark offers several.
        noun: What a cell is, for messages.
        reference: What the note compares with.
    """

    name: str
    preset: str
    note: str
    report: str
    cells: list[CellT]
    data: str | None = None
    noun: str = "training"
    reference: str = "the paper"
