"""Peak memory and time of a step with `encoder_chunk_size`, relative to encoding at once.

Each measurement runs in a new process, because the peak is per process; the memory of an idle process is subtracted.

    python benchmarks/encoder_chunks.py                   SmallCNN on 28 x 28 pixels, InfoNCE
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.common import add_device, peak_megabytes, seconds_now, show
from lightning_mi import MIEstimationModule, bounds, critics, encoders


def step(device: str, batch: int, chunk: int) -> tuple[float, float]:
    """Megabytes and seconds of a forward and backward pass; a chunk of 0 encodes at once."""
    torch.set_num_threads(1)
    module = MIEstimationModule(
        critics.InnerProductCritic(scaled=True),
        bounds.InfoNCE(),
        encoder=encoders.SmallCNN(1),
        encoder_chunk_size=chunk or None,
    ).to(device)
    views = [torch.randn(batch, 1, 28, 28, device=device) for _ in range(2)]
    module.step([view[:2] for view in views]).loss.backward()  # libraries that load at first use
    started = seconds_now(device)
    megabytes = peak_megabytes(lambda: module.step(views).loss.backward(), device)
    return megabytes, seconds_now(device) - started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 2048, 4096])
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--csv", type=Path)
    add_device(parser)
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(*step(options.device, *options.one))
        return
    rows = []
    for batch in options.batches:
        found = []
        for chunk in (0, options.chunk):
            command = [sys.executable, __file__, "--device", options.device, "--one", str(batch), str(chunk)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.append([float(number) for number in output.split()])
        (memory, seconds), (chunk_memory, chunk_seconds) = found
        rows.append(
            [
                str(batch),
                f"{memory:.0f}",
                f"{chunk_memory:.0f}",
                f"{chunk_memory / max(memory, 1):.2f}",
                f"{chunk_seconds / seconds:.2f}",
            ]
        )
    heading = ["N", "MB at once", f"MB in chunks of {options.chunk}", "memory, ratio", "time, ratio"]
    show(heading, rows, options.csv)


if __name__ == "__main__":
    main()
