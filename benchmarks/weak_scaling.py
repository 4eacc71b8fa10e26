"""Weak scaling: time of a step with more ranks and a constant batch size per rank.

Regularized DV with a separable critic 256-256 under DDP. With gathering, each of W ranks scores W times as many
candidates, and training equals that of one process on the global batch; without, each rank pairs its local samples.
Reported is the wall time of a step, the median over blocks of 20, on machines with a core (or a GPU) for each rank.

    python benchmarks/weak_scaling.py
    python benchmarks/weak_scaling.py --device cuda --processes 1 4
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as L
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DataLoader

from benchmarks.common import add_device, quiet, show
from benchmarks.trainer_overhead import Batches
from lightning_mi import MIEstimationModule, bounds, critics, pairs, regularizers

BLOCK = 20  # steps in a timed block
DIM = 20


class Blocks(L.Callback):
    """Records the time at the end of each block of steps; the first block is warm-up."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        if trainer.global_step % BLOCK == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.marks.append(time.perf_counter())

    def median(self) -> float:
        """Median seconds per step."""
        return statistics.median(b - a for a, b in zip(self.marks, self.marks[1:], strict=False)) / BLOCK


def work(rank: int, processes: int, folder: str, batch: int, steps: int, gather: bool, device: str) -> None:
    """Train as one rank; rank 0 writes the seconds per step to a file."""
    quiet()
    torch.manual_seed(0)
    if device == "cuda":
        torch.cuda.set_device(rank)
    if processes > 1:  # a file as rendezvous needs no free port
        os.environ["LOCAL_RANK"] = str(rank)  # Lightning then does not launch ranks itself
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    module = MIEstimationModule(
        critics.SeparableCritic(DIM, DIM, hidden=(256, 256)),
        bounds.DV(),
        pairs=pairs.AllPairs(gather=gather),
        regularizer=regularizers.Squared(weight=1.0),
    )
    blocks = Blocks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator=device,
            devices=processes,
            strategy="ddp" if processes > 1 else "auto",
            max_steps=steps,
            logger=False,
            callbacks=[blocks],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(module, DataLoader(Batches(steps, batch), batch_size=None))
    if rank == 0:
        Path(folder, "seconds").write_text(str(blocks.median()))
    if processes > 1:
        dist.barrier()  # no rank may exit while another one still works
        dist.destroy_process_group()


def measure(batch: int, steps: int, gather: bool, device: str, processes: int) -> float:
    """Seconds per step with this number of ranks."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (processes, folder, batch, steps, gather, device), nprocs=processes)
        return float(Path(folder, "seconds").read_text())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        help="numbers of ranks (default: 1, 2, 4, 8, at most the number of cores or GPUs)",
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--gather", type=int, nargs="+", choices=[0, 1], default=[1, 0])
    parser.add_argument("--steps", type=int, default=400)
    add_device(parser)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    available = torch.cuda.device_count() if options.device == "cuda" else os.cpu_count() or 1
    numbers = options.processes or [number for number in (1, 2, 4, 8) if number <= available]
    heading = ["batch of a process", "processes", "gather", "ms a step", "over the fewest"]
    rows = []
    for batch in options.batches:
        for gather in map(bool, options.gather):
            first = None
            for processes in numbers:
                seconds = measure(batch, options.steps, gather, options.device, processes)
                first = first or seconds
                rows.append(
                    [str(batch), str(processes), str(gather), f"{1000 * seconds:.2f}", f"{seconds / first:.2f}"]
                )
                print("#", *rows[-1], flush=True)
    show(heading, rows, options.csv)


if __name__ == "__main__":
    main()
