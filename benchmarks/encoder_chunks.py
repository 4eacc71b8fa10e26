"""What `encoder_chunk_size` saves and costs: peak memory and processor time of a step, against encoding at once.

Each measurement is a process of its own, for the peak is a process's; the memory of an idle one is taken off.

    python benchmarks/encoder_chunks.py                   SmallCNN on 28 x 28 pixels, InfoNCE
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.common import show
from lightning_mi import MIEstimationModule, bounds, critics, encoders


def step(batch: int, chunk: int) -> tuple[float, float]:
    """Megabytes and processor seconds of a forward and backward pass; a chunk of 0 is all at once."""
    torch.set_num_threads(1)
    module = MIEstimationModule(
        critics.InnerProductCritic(scaled=True),
        bounds.InfoNCE(),
        encoder=encoders.SmallCNN(1),
        encoder_chunk_size=chunk or None,
    )
    views = [torch.randn(batch, 1, 28, 28) for _ in range(2)]
    module.step([view[:2] for view in views]).loss.backward()  # what is loaded at first use
    idle, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    module.step(views).loss.backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024, time.process_time() - started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 2048, 4096])
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(*step(*options.one))
        return
    rows = []
    for batch in options.batches:
        found = []
        for chunk in (0, options.chunk):
            command = [sys.executable, __file__, "--one", str(batch), str(chunk)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.append([float(number) for number in said.split()])
        (memory, seconds), (less, more) = found
        rows.append(
            [str(batch), f"{memory:.0f}", f"{less:.0f}", f"{less / max(memory, 1):.2f}", f"{more / seconds:.2f}"]
        )
    heading = ["N", "MB at once", f"MB by {options.chunk}", "memory, ratio", "time, ratio"]
    show(heading, rows, options.csv)


if __name__ == "__main__":
    main()
