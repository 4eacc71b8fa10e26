"""Other packages in Python environments of their own: arrays as an npz file, the reading as a line of JSON."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, final

import numpy as np

from lightning_mi.bench.arrays.methods import METHODS, Reading
from lightning_mi.bench.arrays.tasks import Sample
from lightning_mi.bench.cells import Interrupted
from lightning_mi.exceptions import GridError

RUNNER = Path(__file__).with_name("peer_runner.py")
DISTRIBUTIONS = {"neuralmi": "neural_mi", "torch-mist": "torch-mist", "bmi": "benchmark-mi"}  # that the runner knows

_CHECK_TIMEOUT = 60.0  # seconds
_POLL = 0.25  # seconds between two looks at the stop flag
_ONE_CPU = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


class PeerFailedError(Exception):
    """A peer ended without a reading."""


@final
@dataclass(frozen=True)
class Peer:
    """Another package.

    Attributes:
        name: One of ``DISTRIBUTIONS``, or any other name.
        command: Words of the interpreter that has the package; for another name, of a program.
        version: Version of the package; empty for another name.
    """

    name: str
    command: Sequence[str]
    version: str = ""

    @property
    def program(self) -> list[str]:
        """The words of the command, to which the npz file is appended."""
        # -I: neither this process's PYTHONPATH nor the folder of the runner is on the path.
        return [*self.command, "-I", str(RUNNER), self.name] if self.name in DISTRIBUTIONS else list(self.command)


def parse_peer(text: str) -> Peer:
    """The peer of an option ``--peer NAME=COMMAND``.

    Raises:
        GridError: If the text has another form, there is no such program, or it has not the peer's package.
    """
    name, equals, command = text.partition("=")
    if not equals or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) or name in METHODS:
        raise GridError(
            f"Got --peer {text}: write NAME=COMMAND. NAME is {', '.join(DISTRIBUTIONS)}, with COMMAND the Python "
            "interpreter that has the package; or another name in lower case, with a program of yours."
        )
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise GridError(f"Got --peer {text}: the command has no words of a shell: {error}.") from None
    if not words or shutil.which(words[0]) is None:
        raise GridError(f"Got --peer {text}: there is no program {words[0] if words else ''!r}. Give its path.")
    peer = Peer(name, tuple(words))
    return Peer(name, peer.command, _version(peer)) if name in DISTRIBUTIONS else peer


def _version(peer: Peer) -> str:
    distribution = DISTRIBUTIONS[peer.name]
    try:
        done = subprocess.run(
            peer.program, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_CHECK_TIMEOUT, check=False
        )
        reason = _last_line(done.stderr)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GridError(f"Got --peer {peer.name}={shlex.join(peer.command)}: {error}.") from error
    if done.returncode != 0:
        raise GridError(
            f"Got --peer {peer.name}={shlex.join(peer.command)}: this interpreter cannot use the distribution "
            f"{distribution}: {reason}. Install it there, with NumPy."
        )
    return done.stdout.strip()


def run_peer(peer: Peer, sample: Sample, seed: int, folder: Path, stopped: Callable[[], bool]) -> tuple[Reading, float]:
    """Run a peer's program, in one thread and without GPUs.

    The program is called with the path of an npz file: ``x`` and ``y`` (n, D) float64, labels as one-hot columns, and
    ``seed``. The last line of its output is a JSON object with ``mi`` in nats, and optionally ``lower``, ``upper`` and
    ``cpu_seconds`` of the estimation alone. It should end when its standard input closes.

    Args:
        peer: The peer.
        sample: The samples.
        seed: Seed of the estimation.
        folder: Folder for the npz file, which is removed afterwards.
        stopped: Called a few times a second; the program is killed once it returns True.

    Returns:
        The reading, and the CPU seconds: as reported, otherwise those of the program and its children.

    Raises:
        Interrupted: If ``stopped`` returned True.
        PeerFailedError: If the program failed; the message is one line.
    """
    x, y = sample.columns
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "samples.npz"
    np.savez(path, x=x, y=y, seed=seed)
    before = _children_seconds()
    try:
        output = _output(peer, path, stopped)
    finally:
        path.unlink()
    return _parse(output, seconds=_children_seconds() - before)


def _output(peer: Peer, path: Path, stopped: Callable[[], bool]) -> str:
    # The temporary files have no names, so an interrupt leaves nothing behind.
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        try:
            process = subprocess.Popen(
                [*peer.program, str(path)],
                stdin=subprocess.PIPE,  # its writing end closes with this process, after which the runner ends
                stdout=stdout,
                stderr=stderr,
                env=os.environ | _ONE_CPU,
                start_new_session=True,  # Ctrl-C in a terminal reaches the grid's first process only
            )
        except OSError as error:
            raise PeerFailedError(str(error)) from error
        with process:
            try:
                status = _wait(process, stopped)
            finally:
                process.kill()  # no effect on a process that has ended
        if status != 0:
            raise PeerFailedError(f"exit status {status}: {_last_line(_content(stderr))}")
        return _content(stdout)


def _wait(process: "subprocess.Popen[bytes]", stopped: Callable[[], bool]) -> int:
    while True:
        try:
            return process.wait(timeout=_POLL)
        except subprocess.TimeoutExpired:
            if stopped():
                raise Interrupted from None


def _parse(output: str, seconds: float) -> tuple[Reading, float]:
    line = _last_line(output)
    try:
        values = json.loads(line)
        lower, upper = (None if values.get(name) is None else _number(values[name]) for name in ("lower", "upper"))
        reading = Reading(_number(values["mi"]), lower, upper)
        seconds = _number(values.get("cpu_seconds", seconds))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise PeerFailedError(f"the last line of its output is no JSON object with numbers: {line[:80]!r}") from None
    if not math.isfinite(reading.mi):
        raise PeerFailedError(f"its estimate is {reading.mi}")
    return reading, seconds


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip().rstrip(".")
