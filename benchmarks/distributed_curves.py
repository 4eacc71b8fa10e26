"""Difference between the curves of one rank and of two ranks on the same batches, for a short recipe `gaussian`.

    python benchmarks/distributed_curves.py

Each run is a `lightning-mi fit`; two ranks are launched by Lightning's `ddp` and by `torchrun`.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lightning_mi.bench.reports.tables import markdown_table

BATCH = 64
LAUNCHERS = {"ddp": ["-m"], "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]}


def curves(folder: Path, processes: int, steps: int, precision: str, launcher: str = "ddp") -> dict[str, list[float]]:
    """The metrics that a training logs at each step, by name."""
    options = {
        "devices": processes,
        "accelerator": "cpu",
        "max_steps": steps,
        "precision": precision,
        "log_every_n_steps": 1,
        "default_root_dir": folder,
        "callbacks": "null",
        "enable_progress_bar": "false",
        "enable_model_summary": "false",
        "logger": "lightning.pytorch.loggers.CSVLogger",
        "logger.save_dir": folder,
    } | ({"strategy": "ddp"} if processes > 1 else {})
    command = [sys.executable, *LAUNCHERS[launcher], "lightning_mi", "fit", "--config", "gaussian"]
    command += [f"--trainer.{name}={value}" for name, value in options.items()]
    subprocess.run([*command, f"--data.batch_size={BATCH // processes}"], check=True, capture_output=True)
    (path,) = folder.rglob("metrics.csv")
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    return {
        name: [float(row[name]) for row in rows if row[name]] for name in rows[0] if name.startswith(("train/", "val/"))
    }


def largest_differences(first: dict[str, list[float]], second: dict[str, list[float]]) -> dict[str, float]:
    """Largest difference of two curves by name, relative for values above 1."""
    assert first.keys() == second.keys()
    return {
        name: max(abs(a - b) / max(abs(a), 1) for a, b in zip(first[name], second[name], strict=True)) for name in first
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--precision", nargs="+", default=["64-true", "32-true"])
    parser.add_argument("--launcher", nargs="+", default=["ddp", "torchrun"], choices=LAUNCHERS)
    options = parser.parse_args(arguments)
    differences, names = {}, []
    for precision in options.precision:
        with tempfile.TemporaryDirectory() as folder:
            one_rank = curves(Path(folder), 1, options.steps, precision)
        names = [name for name in one_rank if len(one_rank[name]) == options.steps]
        for launcher in options.launcher:
            with tempfile.TemporaryDirectory() as folder:
                two_ranks = curves(Path(folder), 2, options.steps, precision, launcher)
            differences[f"{precision}, {launcher}"] = largest_differences(one_rank, two_ranks)
    rows = [[key, *(f"{difference[name]:.0e}" for name in names)] for key, difference in differences.items()]
    print(markdown_table(["precision, launcher", *names], rows))


if __name__ == "__main__":
    main()
