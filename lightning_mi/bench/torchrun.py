"""Train one cell of a grid on several devices: torchrun starts a rank on each, rank 0 reports the progress."""

import json
import queue
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread

from lightning_mi.bench.cells import AbstractCell, Interrupted
from lightning_mi.bench.manifest import cell_record

MESSAGE = "lightning_mi.bench: "  # prefix of a rank's JSON messages on stdout


def train_on_devices(
    folder: Path, cell: AbstractCell, devices: int, report: Callable[[float], None], stopped: Callable[[], bool]
) -> None:
    """Train a cell like ``train_cell`` or ``train_point``, with one process for each device.

    Args:
        folder: Results of the benchmark.
        cell: The training.
        devices: Number of processes.
        report: Called a few times a second with the fraction of the steps done.
        stopped: Called as often; the training stops once it returns True.

    Raises:
        Interrupted: If ``stopped`` returned True.
        RuntimeError: If a rank failed; the message contains its error.
    """
    # torchrun and its ranks inherit a stdin whose writing end only this process holds: they end with this process.
    lifeline = ["-m", "lightning_mi.utilities.lifeline"]
    command = [sys.executable, *lifeline, "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    command += [*lifeline, "lightning_mi.bench.torchrun_worker", str(folder), json.dumps(cell_record(cell))]
    errors: dict[int, str] = {}
    # The temporary file has no name, so an interrupt leaves nothing behind.
    with (
        TemporaryFile("w+") as stderr,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,  # Ctrl-C in a terminal reaches the grid's first process only
        ) as processes,
    ):
        assert processes.stdout is not None
        for line in _lines(processes.stdout):
            if stopped():
                processes.terminate()
                raise Interrupted
            if line is not None and line.startswith(MESSAGE):
                message = json.loads(line.removeprefix(MESSAGE))
                if "fraction" in message:
                    report(message["fraction"])
                else:
                    errors[message["rank"]] = message["error"]
        if processes.wait() != 0:
            stderr.seek(0)
            rank = min(errors, default=None)
            reason = stderr.read()[-500:] if rank is None else f"rank {rank} raised {errors[rank]}"
            raise RuntimeError(f"Training on {devices} device(s) failed: {reason}")


def _lines(stream: Iterable[str]) -> Iterator[str | None]:
    """The lines of a stream, and None in each quarter of a second without one."""
    received: queue.Queue[str | None] = queue.Queue()  # None: the end of the stream

    def read() -> None:
        for line in stream:
            received.put(line)
        received.put(None)

    Thread(target=read, daemon=True).start()
    while True:
        try:
            line = received.get(timeout=0.25)
        except queue.Empty:
            yield None
        else:
            if line is None:
                return
            yield line
