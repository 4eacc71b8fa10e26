"""Train one cell of a grid on several devices: torchrun starts a rank for each, rank 0 reports the progress."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning_mi.bench.grid import Cell, Interrupted

PROGRESS = "fraction done: "  # begins a line of the worker's stdout


def train_on_devices(
    folder: Path, cell: Cell, devices: int, report: Callable[[float], None], stopped: Callable[[], bool]
) -> None:
    """Train a cell as ``train_cell`` does, by one process a device.

    Args:
        folder: Of the benchmark's results.
        cell: What to train.
        devices: How many processes.
        report: Called a few times a second with the fraction of the steps done.
        stopped: Asked as often whether to give up.

    Raises:
        Interrupted: ``stopped`` said so.
        RuntimeError: A process failed; what it said is in the message.
    """
    with TemporaryDirectory(prefix="lightning_mi-") as name:
        task, errors = Path(name) / "cell.json", Path(name) / "stderr"
        task.write_text(json.dumps(asdict(cell)))
        # torchrun and the ranks that it starts share a stdin, whose other end this process holds: they end with it.
        command = [sys.executable, "-m", "lightning_mi.utilities.lifeline", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={devices}", "-m", "lightning_mi.utilities.lifeline"]
        command += ["lightning_mi.bench.torchrun_worker"]
        command += [str(folder), str(task)]
        with (
            errors.open("w") as stderr,
            # In a session of their own: a terminal's Ctrl-C is answered by the grid's first process alone.
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            ) as processes,
        ):
            assert processes.stdout is not None
            for line in processes.stdout:
                if stopped():
                    processes.terminate()
                    raise Interrupted
                if line.startswith(PROGRESS):
                    report(float(line.removeprefix(PROGRESS)))
        if processes.returncode != 0:
            said = [path.read_text() for path in sorted(Path(name).glob("*.error"))] or [errors.read_text()[-500:]]
            raise RuntimeError(f"one of {devices} processes failed: {said[0]}")
