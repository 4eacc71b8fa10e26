"""Ends commands at every moment and looks at what is left: `python benchmarks/signals.py [--commands ...]`.

SIGINT, SIGTERM and SIGHUP to the first process of a command, and SIGKILL of it, at five moments of `fit` (with loader
workers, and with two ranks), `bench` (on this machine, and a training on two ranks) and `bench --ray` (on a Ray cluster
that is started here). Each case checks the exit status, that no process is left after 10 s, that no finished training
and no checkpoint is lost, and that the same command then goes on and exits with 0: `fit` to the weights and curves of a
run that nobody interrupted, bit for bit.
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
PATIENCE = 10  # seconds that processes have to end
CELLS = 3
_CASE = "LIGHTNING_MI_CASE"  # environment variable that all processes of a case inherit
_CLUSTER = "LIGHTNING_MI_CLUSTER"

# `bench onehot` on few cells of few steps, `devices` ranks each.
PROGRAM = """
import sys
from lightning_mi.bench import main
from lightning_mi.bench.grid import Grid, load_grid
from lightning_mi.cli import main as lightning_mi


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
    main.load_grid = few
    sys.exit(lightning_mi())
"""


class SlowValidation(L.Callback):
    """Leaves time to hit a validation, and shows when there is one."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_validation_batch_end(self, *_):
        (self.folder / "validating").touch()
        time.sleep(0.2)


class Fit:
    """`lightning-mi fit` on 60 steps in three epochs, saving every 5 steps."""

    def __init__(self, folder, workers, ranks):
        self.folder, self.workers, self.ranks = folder, workers, ranks
        self.reference = folder / "whole"
        if self.launch(self.reference).wait() != 0:
            raise SystemExit((self.reference / "log.txt").read_text()[-3000:])

    def launch(self, folder, *options):
        config = configuration(folder, "gaussian", self.workers, self.ranks)
        slow = {"class_path": "benchmarks.signals.SlowValidation", "init_args": {"folder": str(folder)}}
        config["trainer"]["callbacks"].append(slow)
        return start(folder, config, *options)

    def reached(self, moment, folder):
        steps = len(trace(folder))
        if moment == "validation or a cell's end":
            return steps >= 20 and (folder / "validating").exists()
        return steps >= {"start-up": 0, "first steps": 1, "middle": 30, "near the end": 58}[moment]

    def mark(self, folder):
        return len(trace(folder))

    def go_on(self, folder, done, number):
        """The exit status of the command that goes on, and what it lost."""
        saved = [path for path in folder.rglob("*.ckpt") if path.name != "final.ckpt"]
        before = (folder / "log.txt").read_text()
        status = self.launch(folder, *(["--ckpt_path=last"] if saved else [])).wait()
        if status != 0:
            return status, " ".join((folder / "log.txt").read_text()[-300:].split())
        found = compare(folder, self.reference, self.ranks)
        exact = found.pop("same samples and losses") and not any(found.values())
        at = [int(line.split("(step ")[1].split(")")[0]) for line in self._new(folder, before) if "(step " in line]
        first = at[0] if at else 0
        # SIGKILL loses the steps since the last save; a signal at most the step that its handler came too late for.
        lost = done - first > (5 if number == "SIGKILL" else 0)
        return status, "nothing" if exact and not lost else f"done {done}, resumed at {first}: {found}"

    def _new(self, folder, before):
        return (folder / "log.txt").read_text()[len(before) :].splitlines()


class Bench:
    """`lightning-mi bench` on three small cells."""

    def __init__(self, folder, steps, devices, *options, cells=CELLS):
        folder.mkdir(parents=True)
        self.cells, self.options = cells, options
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM)
        self.sizes = [str(steps), str(devices), str(cells)]

    def launch(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(self.program), *self.sizes, "bench", "onehot", "--output", str(folder)]
        log = (folder / "log.txt").open("a")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*command, *self.options], env=environment, stdout=log, stderr=log, start_new_session=True
        )

    def reached(self, moment, folder):
        started, finished = len(list(folder.glob("tensorboard/*/events*"))), len(self.mark(folder))
        return {
            "start-up": True,
            "first steps": started >= 1,
            "middle": started >= 2,
            "validation or a cell's end": finished >= 1,
            "near the end": finished >= self.cells - 1,
        }[moment]

    def mark(self, folder):
        return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/curves.npz")}

    def go_on(self, folder, done, number):
        status = self.launch(folder).wait()
        after = self.mark(folder)
        if status != 0:
            return status, " ".join((folder / "log.txt").read_text()[-300:].split())
        again = [name for name, written in done.items() if after.get(name) != written]
        return status, "nothing" if not again and len(after) == self.cells else f"{again} of {sorted(after)}"


def run_case(command, moment, number, folder):
    """One row of the table."""
    os.environ[_CASE] = str(folder)
    process = command.launch(folder)
    began = time.monotonic()
    while not command.reached(moment, folder) or time.monotonic() - began < 1.5:
        if process.poll() is not None:
            break
        time.sleep(0.005)
    late = process.poll() is not None
    process.send_signal(getattr(signal, number))
    sent = time.monotonic()
    while left_of(folder) and time.monotonic() - sent < PATIENCE:
        process.poll()
        time.sleep(0.1)
    took, left = time.monotonic() - sent, left_of(folder)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    status, done = process.wait(), command.mark(folder)
    log = (folder / "log.txt").read_text()
    traceback = "Traceback" in log and number != "SIGKILL"
    again, lost = command.go_on(folder, done, number)
    passed = status == SIGNALS[number] and not left and again == 0 and lost == "nothing" and not traceback and not late
    return [
        moment,
        number,
        str(status),
        f"{took:.1f} s",
        str(len(left)),
        "yes" if traceback else "no",
        lost,
        str(again),
        "yes" if passed else "NO" + (" (had ended)" if late else ""),
    ]


def left_of(folder):
    """Living processes of a case, wherever they hang in the tree of processes."""
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
            tasks = title.startswith((b"ray::train_on_worker", b"ray::Progress"))
            if state != "Z" and (of_case or (of_cluster and tasks)):
                found.append(int(entry.name))
    return found


@contextmanager
def ray_cluster():
    """A head with two CPUs; `ray stop` would end those of other people too."""
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


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", default=COMMANDS, choices=COMMANDS)
    parser.add_argument("--signals", nargs="+", default=list(SIGNALS), choices=SIGNALS)
    parser.add_argument("--moments", nargs="+", default=MOMENTS, choices=MOMENTS)
    parser.add_argument("--csv", type=Path, default=Path("signals.csv"))
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="signals-"))
    heading = ["command", "moment", "signal", "status", "ended after", "left", "traceback", "lost", "again", "passed"]
    rows = []
    for name in options.commands:
        place = folder / str(COMMANDS.index(name))
        with ray_cluster() if "ray" in name else nullcontext() as address:
            command = {
                "fit, 2 loader workers": lambda at: Fit(at, 2, 1),
                "fit, 2 ranks": lambda at: Fit(at, 0, 2),
                "bench": lambda at: Bench(at, 400, 1, "--jobs", "2"),
                "bench, 2 ranks a cell": lambda at: Bench(at, 200, 2, "--jobs", "1", cells=2),
                "bench --ray": lambda at, address=address: Bench(at, 400, 1, "--ray", address),
            }[name](place)
            for moment in options.moments:
                for number in options.signals:
                    row = run_case(command, moment, number, place / f"{moment.split()[0]}-{number}")
                    rows.append([name, *row])
                    print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    show(heading, rows, options.csv)
    return 0 if all(row[-1] == "yes" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
