"""Shared functions of the scripts: devices, clocks, memory, logging and tables."""

import argparse
import json
import logging
import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

from lightning_mi.bench.reports.tables import markdown_table, write_csv


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--device``; an unavailable device ends the script."""

    def device(name: str) -> str:
        if name == "cuda" and not torch.cuda.is_available():
            raise argparse.ArgumentTypeError(
                "got 'cuda': torch finds no CUDA device. Run on a machine with a GPU and a CUDA build of torch, or "
                "choose 'cpu'."
            )
        return name

    help = "cpu: processor time and resident memory. cuda: wall time of the GPU's work, and memory allocated on it"
    parser.add_argument("--device", type=device, choices=["cpu", "cuda"], default="cpu", help=help)


def seconds_now(device: str) -> float:
    """CPU time of this process in seconds; for a GPU the wall time after synchronization."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_megabytes(run: Callable[[], object], device: str) -> float:
    """Peak memory of a run minus the memory before it, MB. On a CPU, the process must not have used more before."""
    if device == "cpu":
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        run()
        return (1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    torch.cuda.reset_peak_memory_stats()
    allocated = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - allocated) / 1e6


def run_apart(command: Sequence[str]) -> str:
    """Output of a command that runs in a new process with a fresh peak resident size."""
    # Through a shell, because a process inherits the peak resident size of its parent.
    apart = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    return subprocess.run(apart, capture_output=True, text=True, check=True).stdout


def ask_peer(python: str, script: str, **options: object) -> dict[str, Any]:
    """Result of a script in ``peers``, run by the Python of an environment with torch-mist."""
    command = [python, str(Path(__file__).parent / "peers" / script)]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        command += [f"--{name}", *map(str, values)]
    result: dict[str, Any] = json.loads(run_apart(command).splitlines()[-1])
    return result


class Clock(L.Callback):
    """Callback that measures the seconds from the end of a warm-up to the end of the training.

    Args:
        warm_up: Number of steps that are not timed.
        device: ``cpu`` or ``cuda``; see :func:`seconds_now`.
    """

    def __init__(self, warm_up: int = 0, device: str = "cpu") -> None:
        self._warm_up = warm_up
        self._device = device

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self._warm_up:
            self.started = seconds_now(self._device)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = seconds_now(self._device) - self.started


def quiet() -> None:
    """Use one thread, and log only errors of Lightning."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)


def show(heading: Sequence[str], rows: Sequence[Sequence[str]], path: Path | None) -> None:
    """Print rows as a table; write them as CSV if ``path`` is given."""
    print(markdown_table(heading, rows))
    if path is not None:
        write_csv(path, [dict(zip(heading, row, strict=True)) for row in rows])
