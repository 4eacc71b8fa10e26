"""Interrupt commands at five moments, resume them, and check the result.

    python benchmarks/signals.py [--commands ...]

SIGINT, SIGTERM, SIGHUP or SIGKILL is sent to the first process of `fit` (with loader workers, and with two ranks),
`bench` (on this machine, and with two ranks per training) and `bench --ray` (on a Ray cluster that this script starts).
A command is interrupted at the first moment, started again, interrupted at the next moment, and so on; after the fifth
it runs to its end. Checks: the exit status; no process left after 10 s; no traceback; no finished training repeated;
status 0 at the end, and for `fit` weights, random states and curves bitwise equal to those of an uninterrupted run.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import lightning.pytorch as L

from benchmarks.common import show
from benchmarks.faults import ROOT, compare, configuration, start, trace

SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGKILL": -9}
MOMENTS = ("start-up", "first steps", "middle", "validation or a cell's end", "near the end")
COMMANDS = ("fit, 2 loader workers", "fit, 2 ranks", "bench", "bench, 2 ranks a cell", "bench --ray")
TIMEOUT = 10  # seconds that processes have to end
CELLS = 3
_CASE = "LIGHTNING_MI_CASE"  # environment variable, inherited by all processes of a case
_CLUSTER = "LIGHTNING_MI_CLUSTER"

# `bench onehot` with few cells of few steps on `devices` ranks each.
PROGRAM = """
import sys
from lightning_mi.bench import run
from lightning_mi.bench.cells import Grid
from lightning_mi.bench.grid import load_grid
from lightning_mi.cli.main import main as lightning_mi


def few(*args, **kwargs):
    grid = load_grid("onehot", "quick", losses=["DV"], seeds=list(range(cells)), devices=devices)
    chosen = [cell for cell in grid.cells if cell.study == "drifting" and cell.variant == "original"]
    for cell in chosen:
        cell.config["data"]["init_args"]["steps"] = steps
        cell.config["trainer"]["accelerator"] = "cpu"
    return Grid(grid.name, grid.preset, grid.note, grid.report, chosen)


if __name__ == "__main__":  # workers import this file too
    steps, devices, cells = map(int, sys.argv[1:4])
    sys.argv = sys.argv[:1] + sys.argv[4:]
    run.load_grid = few
    sys.exit(lightning_mi())
"""


class SlowValidation(L.Callback):
    """Slows down the validation and marks its start with a file."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_validation_batch_end(self, *_):
        (self.folder / "validating").touch()
        time.sleep(0.2)


class Fit:
    """`lightning-mi fit` on 60 steps in three epochs, saving every 5 steps."""

    def __init__(self, folder, workers, ranks):
        self.workers, self.ranks = workers, ranks
        self.reference = folder / "whole"
        if self.launch(self.reference).wait() != 0:
            raise SystemExit((self.reference / "log.txt").read_text()[-3000:])

    def launch(self, folder):
        config = configuration(folder, "gaussian", self.workers, self.ranks)
        slow = {"class_path": "benchmarks.signals.SlowValidation", "init_args": {"folder": str(folder)}}
        config["trainer"]["callbacks"].append(slow)
        (folder / "validating").unlink(missing_ok=True)
        self.already = len(trace(folder))
        return start(folder, config, *(["--ckpt_path=last"] if any(folder.rglob("*.ckpt")) else []))

    def reached(self, moment, folder):
        step = max((line["step"] for line in trace(folder)[self.already :]), default=-1)
        if moment == "validation or a cell's end":
            return step >= 39 and (folder / "validating").exists()
        return step >= {"start-up": -1, "first steps": 0, "middle": 29, "near the end": 56}[moment]

    def lost(self, folder):
        """Differences from the uninterrupted run in steps, samples, curves and weights."""
        differences = compare(folder, self.reference, self.ranks)
        exact = differences.pop("same samples and losses") and not any(differences.values())
        repeated = len(trace(folder)) - len(trace(self.reference))
        return f"nothing, {repeated} steps repeated" if exact else str(differences)


class Bench:
    """`lightning-mi bench` with a few small cells."""

    def __init__(self, folder, steps, devices, *options, cells=CELLS):
        folder.mkdir(parents=True)
        self.options, self.cells = options, cells
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM)
        self.sizes = [str(steps), str(devices), str(cells)]
        self.written = {}

    def launch(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(self.program), *self.sizes, "bench", "onehot", "--output", str(folder)]
        log = (folder / "log.txt").open("a")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.already = set(folder.glob("tensorboard/*/events*"))
        return subprocess.Popen(
            [*command, *self.options], env=environment, stdout=log, stderr=log, start_new_session=True
        )

    def reached(self, moment, folder):
        started = len(set(folder.glob("tensorboard/*/events*")) - self.already)
        finished = self._finished(folder)
        self.written |= {path: finished[path] for path in finished.keys() - self.written.keys()}
        return {
            "start-up": True,
            "first steps": started >= 1,
            "middle": started >= 2,
            "validation or a cell's end": len(finished) >= 1,
            "near the end": len(finished) >= self.cells - 1,
        }[moment]

    def lost(self, folder):
        """Finished cells that were trained again, and missing cells."""
        finished = self._finished(folder)
        of_chain = {path: written for path, written in self.written.items() if folder in path.parents}
        again = [path.parent.name for path, written in of_chain.items() if finished.get(path) != written]
        return "nothing" if not again and len(finished) == self.cells else f"{again}, {len(finished)} of {self.cells}"

    def _finished(self, folder):
        return {path: path.stat().st_mtime_ns for path in folder.glob("*/curves.npz")}


def run_chain(command, number, moments, folder):
    """A row of the table: one command, interrupted at each moment and resumed, to its end."""
    os.environ[_CASE] = str(folder)
    cells, faults = [], []
    for moment in moments:
        status, seconds, left = interrupt(command, number, moment, folder)
        cells.append(f"{seconds:.1f} s")
        # While Python starts, the signal itself ends the process; a shell reports the same status.
        as_shell = 128 - status if status < 0 and number != "SIGKILL" else status
        faults += [f"{moment}: status {status}"] if as_shell != SIGNALS[number] else []
        faults += [f"{moment}: {len(left)} left"] if left else []
    if number != "SIGKILL" and "Traceback" in (folder / "log.txt").read_text():
        faults.append("traceback")
    status = command.launch(folder).wait()
    lost = command.lost(folder) if status == 0 else " ".join((folder / "log.txt").read_text()[-300:].split())
    faults += [f"the last run exited with {status}"] if status != 0 else []
    passed = not faults and lost.startswith("nothing")
    return [*cells, "; ".join(faults) or "none", lost, "yes" if passed else "NO"]


def interrupt(command, number, moment, folder):
    """The exit status, the seconds until all processes have ended, and the processes left after the timeout."""
    process = command.launch(folder)
    began = time.monotonic()
    while process.poll() is None and (time.monotonic() - began < 1 or not command.reached(moment, folder)):
        time.sleep(0.005)
    process.send_signal(getattr(signal, number))
    sent = time.monotonic()
    while left_of(folder) and time.monotonic() - sent < TIMEOUT:
        process.poll()
        time.sleep(0.05)
    seconds, left = time.monotonic() - sent, left_of(folder)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return process.wait(), seconds, left


def left_of(folder):
    """Living processes of a case, by their environment variable."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                title = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            of_case = f"{_CASE}={folder}".encode() in variables
            of_cluster = f"{_CLUSTER}={os.getpid()}".encode() in variables
            tasks = title.startswith((b"ray::run_on_worker", b"ray::Progress"))
            if state != "Z" and (of_case or (of_cluster and tasks)):
                found.append(int(entry.name))
    return found


@contextmanager
def ray_cluster():
    """A Ray head node with two CPUs. Not `ray start`: `ray stop` would also end other clusters."""
    from ray.cluster_utils import Cluster

    os.environ |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", _CLUSTER: str(os.getpid())}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 80_000_000, "include_dashboard": False},
    )
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def make(name, folder, address):
    if name.startswith("fit"):
        return Fit(folder, *((2, 1) if "workers" in name else (0, 2)))
    if name == "bench --ray":
        return Bench(folder, 400, 1, "--ray", address, cells=6)  # only finished cells are visible on this machine
    return Bench(folder, 400, 1, "--jobs", "2") if name == "bench" else Bench(folder, 200, 2, "--jobs", "2")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", default=COMMANDS, choices=COMMANDS)
    parser.add_argument("--signals", nargs="+", default=list(SIGNALS), choices=SIGNALS)
    parser.add_argument("--moments", nargs="+", default=MOMENTS, choices=MOMENTS)
    parser.add_argument("--csv", type=Path, default=Path("signals.csv"))
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="signals-"))
    heading = ["command", "signal", *options.moments, "faults", "lost", "passed"]
    rows = []
    for name in options.commands:
        place = folder / str(COMMANDS.index(name))
        with ray_cluster() if "ray" in name else nullcontext() as address:
            command = make(name, place, address)
            for number in options.signals:
                rows.append([name, number, *run_chain(command, number, options.moments, place / number)])
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    show(heading, rows, options.csv)
    return 0 if all(row[-1] == "yes" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
