"""The process that torchrun starts for each rank of a cell: train it, print the progress of rank 0."""

import json
import os
import sys
from pathlib import Path

from lightning_mi.bench.grid import Cell
from lightning_mi.bench.torchrun import PROGRESS


def _main() -> None:
    from lightning_mi.bench.train import train_cell
    from lightning_mi.utilities.distributed import destroy_process_group

    folder, task = sys.argv[1:]
    sys.argv = sys.argv[:1]  # LightningCLI would parse them
    rank = os.environ["RANK"]

    def report(fraction: float) -> None:
        if rank == "0":
            print(f"{PROGRESS}{fraction}", flush=True)

    try:
        train_cell(Path(folder), Cell(**json.loads(Path(task).read_text())), report)
    except Exception as error:
        Path(task).with_suffix(f".{rank}.error").write_text(f"{type(error).__name__}: {error}")
        raise
    destroy_process_group()


if __name__ == "__main__":
    _main()
