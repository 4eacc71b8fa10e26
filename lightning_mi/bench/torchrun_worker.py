"""One rank of a cell, started by torchrun: trains the cell and sends messages on stdout."""

import json
import os
import sys
from pathlib import Path

from lightning_mi.bench.grid import Cell
from lightning_mi.bench.manifest import read_cell
from lightning_mi.bench.sweep.cell import SweepCell
from lightning_mi.bench.torchrun import MESSAGE

_MAX_ERROR = 2000  # characters: longer lines of several ranks could interleave in a pipe


def _main() -> None:
    from lightning_mi.bench.sweep.training import train_point
    from lightning_mi.bench.train import train_cell
    from lightning_mi.utilities.distributed import destroy_process_group

    folder, record = sys.argv[1:]
    sys.argv = sys.argv[:1]  # LightningCLI would parse the arguments
    rank = int(os.environ["RANK"])

    def report(fraction: float) -> None:
        if rank == 0:
            _send(fraction=fraction)

    try:
        cell = read_cell(json.loads(record))
        if isinstance(cell, SweepCell):
            train_point(Path(folder), cell, report)
        else:
            assert isinstance(cell, Cell)
            train_cell(Path(folder), cell, report)
    except Exception as error:
        _send(rank=rank, error=f"{type(error).__name__}: {error}"[:_MAX_ERROR])
        raise
    destroy_process_group()


def _send(**message: object) -> None:
    print(f"{MESSAGE}{json.dumps(message)}", flush=True)


if __name__ == "__main__":
    _main()
