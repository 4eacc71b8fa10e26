"""Run all measurements of speed and memory one after the other, each with a CSV and its output: docs/performance.md.

    python benchmarks/run.py                                 an hour on a quiet machine
    python benchmarks/run.py --peer peer/bin/python          with torch-mist, see staircase_peers.py
    python benchmarks/run.py --only overhead scaling
    python benchmarks/run.py --device cuda                   on a GPU; weak scaling on all GPUs
    python benchmarks/run.py --tiny                          a minute, to check that all scripts run

Each measurement uses one thread or one GPU; nothing else should run on the machine.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import add_device

HERE = Path(__file__).parent
# For each measurement: the script, its arguments, and its arguments with --tiny.
MEASUREMENTS: dict[str, tuple[str, list[str], list[str]]] = {
    "scoring": ("scoring.py", [], ["--tiny", "--bounds", "DV"]),
    "large": (
        "scoring.py",
        ["--critics", "separable", "--sizes", "16384", "65536", "--bounds", "DV", "InfoNCE", "JS", "--seconds", "0"],
        ["--tiny", "--critics", "separable", "--bounds", "InfoNCE"],
    ),
    "concatenated": (
        "scoring.py",
        ["--critics", "joint", "--sizes", "256", "--dim", "784", "--bounds", "DV", "--forms", "tiles", "concatenated"],
        ["--tiny", "--critics", "joint", "--bounds", "DV", "--forms", "tiles", "concatenated"],
    ),
    "overhead": ("trainer_overhead.py", [], ["--steps", "20", "--rounds", "1"]),
    "staircase": ("staircase_peers.py", [], ["--steps", "4", "--batch", "8", "--losses", "DV"]),
    "staircase_128": (  # the batch size of torch-mist
        "staircase_peers.py",
        ["--batch", "128", "--steps", "100"],
        ["--steps", "4", "--batch", "8", "--losses", "DV", "--critics", "separable"],
    ),
    "many": ("many_critics.py", [], ["--tiny"]),
    "scaling": ("weak_scaling.py", [], ["--steps", "60", "--batches", "4", "--gather", "1"]),
    "candidates": (
        "candidate_memory.py",
        [],
        ["--pairs", "64", "--ranks", "1", "2", "--critics", "cosine", "--tile", "1024"],
    ),
    "chunks": ("encoder_chunks.py", [], ["--batches", "8", "--chunk", "4"]),
}
WITH_PEER = ("scoring", "staircase", "staircase_128")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(MEASUREMENTS), choices=MEASUREMENTS)
    parser.add_argument("--output", type=Path, default=Path("lightning_mi_runs/performance"))
    parser.add_argument("--peer", help="the Python of an environment with torch-mist")
    parser.add_argument("--tiny", action="store_true")
    add_device(parser)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only:
        script, settings, tiny = MEASUREMENTS[name]
        command = [sys.executable, str(HERE / script), *(tiny if options.tiny else settings)]
        command += ["--device", options.device, "--csv", str(options.output / f"{name}.csv")]
        if options.peer and name in WITH_PEER:
            command += ["--peer", options.peer]
        print(f"== {name}: {' '.join(command)}", flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout, flush=True)
        (options.output / f"{name}.txt").write_text(done.stdout)
        failed += [name] if done.returncode else []
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
