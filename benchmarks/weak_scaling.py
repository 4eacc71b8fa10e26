"""Weak scaling: the time of a step when each of more processes brings a batch of the same length.

Regularized DV with a separable critic 256-256 under DDP. With gathering, W processes score W times as many candidates
each, and train as one would on the whole batch; without, each pairs its own samples. Wall time of a step, the median of
blocks of 20, on machines with a core (or a GPU) for each process.

    python benchmarks/weak_scaling.py
    python benchmarks/weak_scaling.py --processes 1 2 4 8 --accelerator gpu
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader

from benchmarks.common import quiet, show
from benchmarks.trainer_overhead import Batches
from lightning_mi import MIEstimationModule, bounds, critics, pairs, regularizers

BLOCK = 20  # steps that are timed together
DIM = 20


class Blocks(L.Callback):
    """Seconds of each block of steps but the first, which warms up."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        if trainer.global_step % BLOCK == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.marks.append(time.perf_counter())

    def median(self) -> float:
        """Seconds a step."""
        return statistics.median(b - a for a, b in zip(self.marks, self.marks[1:], strict=False)) / BLOCK


def worker(batch: int, steps: int, gather: bool, accelerator: str, processes: int) -> None:
    """Train, as one of the processes, and have the first print seconds a step."""
    quiet()
    torch.manual_seed(0)
    module = MIEstimationModule(
        critics.SeparableCritic(DIM, DIM, hidden=(256, 256)),
        bounds.DV(),
        pairs.AllPairs(gather),
        regularizer=regularizers.Squared(weight=1.0),
    )
    blocks = Blocks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator=accelerator,
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
    if trainer.is_global_zero:
        print(json.dumps(blocks.median()), flush=True)


def measure(batch: int, steps: int, gather: bool, accelerator: str, processes: int) -> float:
    """Seconds a step of so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    task = [str(batch), str(steps), str(int(gather)), accelerator, str(processes)]
    command = [sys.executable, *launcher, __file__, "--worker", *task]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    return float(json.loads(answer))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--gather", type=int, nargs="+", choices=[0, 1], default=[1, 0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        batch, steps, gather, accelerator, processes = options.worker
        worker(int(batch), int(steps), bool(int(gather)), accelerator, int(processes))
        return
    heading = ["batch of a process", "processes", "gather", "ms a step", "over the fewest"]
    rows = []
    for batch in options.batches:
        for gather in map(bool, options.gather):
            alone = None
            for processes in options.processes:
                seconds = measure(batch, options.steps, gather, options.accelerator, processes)
                alone = alone or seconds
                rows.append(
                    [str(batch), str(processes), str(gather), f"{1000 * seconds:.2f}", f"{seconds / alone:.2f}"]
                )
                print("#", *rows[-1], flush=True)
    show(heading, rows, options.csv)


if __name__ == "__main__":
    main()
