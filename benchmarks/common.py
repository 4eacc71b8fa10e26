"""What the scripts share: devices, clocks, memory, a quiet process, and how rows are shown."""

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
    """The option ``--device``; one that is not there ends the script."""

    def device(name: str) -> str:
        if name == "cuda" and not torch.cuda.is_available():
            raise argparse.ArgumentTypeError(
                "torch finds no CUDA device here. Run it on a machine with one, with a torch that is built for it, or "
                "take 'cpu'."
            )
        return name

    help = "cpu: processor time and resident memory. cuda: wall time of the GPU's work, and memory allocated on it"
    parser.add_argument("--device", type=device, choices=["cpu", "cuda"], default="cpu", help=help)


def seconds_now(device: str) -> float:
    """Processor seconds of this process; of a GPU the wall's, once it has done all that it was given."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_megabytes(run: Callable[[], object], device: str) -> float:
    """What the highest memory in a run exceeds that before it by; on a CPU in a process that had no more before."""
    if device == "cpu":
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        run()
        return (1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    torch.cuda.reset_peak_memory_stats()
    allocated = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - allocated) / 1e6


def run_apart(command: Sequence[str]) -> str:
    """What a command prints, in a process whose highest resident size nothing else has raised."""
    # From a shell, since a process begins with the highest resident size of the one that has started it.
    apart = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    return subprocess.run(apart, capture_output=True, text=True, check=True).stdout


def ask_peer(python: str, script: str, **options: object) -> dict[str, Any]:
    """What a script in ``peers`` measures, under the Python of an environment with torch-mist."""
    command = [python, str(Path(__file__).parent / "peers" / script)]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        command += [f"--{name}", *map(str, values)]
    found: dict[str, Any] = json.loads(run_apart(command).splitlines()[-1])
    return found


class Clock(L.Callback):
    """Seconds from the end of a warm-up to the end of the training.

    Args:
        warm_up: Steps that are not timed.
        device: Whose; see :func:`seconds_now`.
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
    """One thread, and no word of Lightning's short of an error."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)


def show(heading: Sequence[str], rows: Sequence[Sequence[str]], path: Path | None) -> None:
    """Print rows as a table, and keep them as CSV where there is a path."""
    print(markdown_table(heading, rows))
    if path is not None:
        write_csv(path, [dict(zip(heading, row, strict=True)) for row in rows])
