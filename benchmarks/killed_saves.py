"""SIGKILL during saves by three plugins: `python benchmarks/faults.py saves`.

A child process saves in a loop and is killed.
"""

import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lightning_mi import AtomicCheckpointIO
from lightning_mi.utilities.atomic_files import sweep

ROOT = Path(__file__).resolve().parents[1]


class Bare:
    """Plain `torch.save`, as in a custom training loop."""

    def save_checkpoint(self, checkpoint, path):
        torch.save(checkpoint, path)


def saves(kills):
    others = [Path("/dev/shm"), Path("/tmp")]
    for plugin in (AtomicCheckpointIO(), TorchCheckpointIO(), Bare()):
        folder = Path(tempfile.mkdtemp(dir=ROOT))
        elsewhere = next(p for p in others if p.stat().st_dev != folder.stat().st_dev)
        temporary = Path(tempfile.mkdtemp(dir=elsewhere))
        unloadable = most = 0
        rng = random.Random(0)
        for kill in range(kills):
            child = os.fork()
            if child == 0:
                os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
                while True:
                    plugin.save_checkpoint(_content(kill), folder / "last.ckpt")
            time.sleep(0.02 + 0.1 * rng.random())
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            left = [path for place in (folder, temporary) for path in place.iterdir() if path.name != "last.ckpt"]
            most = max(most, len(left))
            if (folder / "last.ckpt").exists():
                try:
                    torch.load(folder / "last.ckpt", weights_only=True)
                except Exception:
                    unloadable += 1
                    (folder / "last.ckpt").unlink()
            if isinstance(plugin, AtomicCheckpointIO):
                sweep(folder)  # as the next start does
        print(
            f"{type(plugin).__name__:20} {kills} kills: {unloadable} unloadable, at most {most} left over at a start, "
            f"{len(list(folder.glob('.*.partial')))} after the last sweep",
            flush=True,
        )
        shutil.rmtree(folder)
        shutil.rmtree(temporary)


def _content(value):
    return {"state_dict": {str(i): torch.full((250_000,), float(value)) for i in range(8)}}  # 8 MB
