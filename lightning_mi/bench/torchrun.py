"""Trains one cell of a grid on several devices: torchrun starts a process for each, this one listens to the first."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning_mi.bench.grid import Cell, Interrupted

_PROGRESS = "fraction done: "


def is_launched() -> bool:
    """Whether this process is one of those that :func:`train_on_devices` starts."""
    return "TORCHELASTIC_RUN_ID" in os.environ


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
        command += [
            f"--nproc-per-node={devices}",
            "-m",
            "lightning_mi.utilities.lifeline",
            "lightning_mi.bench.torchrun",
        ]
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
                if line.startswith(_PROGRESS):
                    report(float(line.removeprefix(_PROGRESS)))
        if processes.returncode != 0:
            said = [path.read_text() for path in sorted(Path(name).glob("*.error"))] or [errors.read_text()[-500:]]
            raise RuntimeError(f"one of {devices} processes failed: {said[0]}")


def _main() -> None:
    from lightning_mi.bench.train import train_cell
    from lightning_mi.utilities.distributed import leave

    folder, task = sys.argv[1:]
    sys.argv = sys.argv[:1]  # Lightning's CLI would read them
    first = os.environ["RANK"] == "0"

    def report(fraction: float) -> None:
        if first:
            print(f"{_PROGRESS}{fraction}", flush=True)

    try:
        train_cell(Path(folder), Cell(**json.loads(Path(task).read_text())), report)
    except Exception as error:
        Path(task).with_suffix(f".{os.environ['RANK']}.error").write_text(f"{type(error).__name__}: {error}")
        raise
    leave()


if __name__ == "__main__":
    _main()
