"""Fault injection: `python benchmarks/faults.py saves | resume | signals`.

saves    SIGKILL during saves by three plugins, with TMPDIR on another file system.
resume   SIGKILL at random steps of `lightning-mi fit`, with 0 and 2 dataloader workers and 1 and 2 ranks, then
         `--ckpt_path last`; compared bitwise with an uninterrupted training.
signals  SIGTERM, and SIGKILL of one of two ranks: exit status, time, orphans, and the resumed training. Schedulers
         signal every process, dataloader workers too.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lightning.pytorch as L
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.killed_saves import saves

STEPS, EPOCHS = 20, 3
SAVE_EVERY = 5  # an epoch's last step among them
ROOT = Path(__file__).resolve().parents[1]


class Trace(L.Callback):
    """Writes a line for each step and rank with the batch and the loss; saves a checkpoint at the end."""

    def __init__(self, folder: str, pause: float = 0.02):
        self.folder, self.pause = Path(folder), pause

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        digest = hashlib.sha1(b"".join(part.numpy().tobytes() for part in batch)).hexdigest()
        line = {"step": trainer.global_step - 1, "batch": digest, "loss": outputs["loss"].item(), "pid": os.getpid()}
        with (self.folder / f"trace-{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        time.sleep(self.pause)

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / "final.ckpt")


def part(class_path, **init_args):
    return {"class_path": class_path, "init_args": init_args}


def configuration(folder, data, workers, ranks):
    """The configuration of a training on Gaussian vectors or on digits."""
    if data == "gaussian":
        sizes: dict[str, object] = {"dim": 8, "mi": 2.0, "steps_per_mi": STEPS, "batch_size": 16, "val_batches": 4}
        module = part("lightning_mi.data.GaussianDataModule", **sizes, num_workers=workers)
        critic = part("lightning_mi.critics.JointCritic", x_dim=8, y_dim=8, hidden=[32])
        encoder = part("torch.nn.Dropout", p=0.1)
        pairs = part("lightning_mi.pairs.Derangement")
    else:
        sizes = {"dataset": "digits", "batch_size": 20, "limit_train": 40 * STEPS, "val_fraction": 0.1}
        module = part("lightning_mi.data.ImageDataModule", **sizes, num_workers=workers)
        critic = part("lightning_mi.critics.LabelCritic")
        encoder = part("lightning_mi.encoders.SmallCNN", in_channels=1, out_dim=10, final_relu=False)
        pairs = part("lightning_mi.pairs.EnumeratedLabels", num_classes=10)
    checkpoints = {"every_n_train_steps": SAVE_EVERY, "save_last": True, "filename": "{step}"}
    bound = part("lightning_mi.bounds.MINE", ema_rate=0.1)
    return {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "devices": ranks,
            "strategy": "ddp" if ranks > 1 else "auto",
            "max_epochs": EPOCHS,
            "limit_train_batches": STEPS,
            "log_every_n_steps": 1,
            "default_root_dir": str(folder),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                part("lightning.pytorch.callbacks.ModelCheckpoint", **checkpoints),
                part("benchmarks.faults.Trace", folder=str(folder)),
            ],
        },
        "data": module,
        "model": part("lightning_mi.MIEstimationModule", critic=critic, encoder=encoder, pairs=pairs, bound=bound),
    }


def start(folder, config, *options):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "lightning_mi", "fit", "--config", str(folder / "config.yaml"), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}
    log = (folder / "log.txt").open("a")
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def free_port():
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        return unused.getsockname()[1]


def trace(folder, rank=0):
    path = folder / f"trace-{rank}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    read = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            read.append(json.loads(line))
    return read


def wait_for_step(process, folder, step, already):
    """Wait until a process that started after `already` lines has trained a step."""
    while not any(line["step"] >= step for line in trace(folder)[already:]):
        if process.poll() is not None:
            raise SystemExit(f"ended with {process.returncode}: {(folder / 'log.txt').read_text()[-3000:]}")
        time.sleep(0.01)


def curves(folder):
    """All points in all versions' event files: {(tag, step): values}."""
    points: dict[tuple[str, int], set[float]] = {}
    for version in sorted(folder.rglob("version_*")):
        events = EventAccumulator(str(version), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                points.setdefault((tag, event.step), set()).add(event.value)
    return points


def difference(first, second):
    """The largest difference of two trees' tensors and numbers; infinite if their structures differ."""
    if isinstance(first, dict):
        same = isinstance(second, dict) and first.keys() == second.keys()
        return max((difference(first[k], second[k]) for k in first), default=0.0) if same else float("inf")
    if isinstance(first, list | tuple):
        same = len(first) == len(second)
        return max(map(difference, first, second), default=0.0) if same else float("inf")
    if torch.is_tensor(first):
        return 0.0 if torch.equal(first, second) else (first.double() - second.double()).abs().max().item()
    return 0.0 if first == second else float("inf")


def compare(folder, reference, ranks):
    """Differences of a resumed training from an uninterrupted one."""
    one, other = (torch.load(place / "final.ckpt", weights_only=True) for place in (folder, reference))
    found = {key: difference(one[key], other[key]) for key in ("state_dict", "optimizer_states", "lightning_mi")}
    samples = True
    for rank in range(ranks):
        mine, right = ({line["step"]: line for line in trace(place, rank)} for place in (folder, reference))
        samples &= {s: (v["batch"], v["loss"]) for s, v in mine.items()} == {
            s: (v["batch"], v["loss"]) for s, v in right.items()
        } and sorted(mine) == list(range(STEPS * EPOCHS))
    points, expected = curves(folder), curves(reference)
    found["missing points"] = len(expected.keys() - points.keys())
    found["other points"] = sum(points[key] != expected.get(key) for key in points)
    return found | {"same samples and losses": samples}


def resume(kills, folder):
    rng, done = random.Random(1), 0
    cases = [("gaussian", 0, 1), ("digits", 2, 1), ("digits", 0, 2), ("gaussian", 2, 2)]
    for data, workers, ranks in cases:
        name = f"{data}-{workers}-workers-{ranks}-processes"
        reference, killed = folder / f"{name}-whole", folder / f"{name}-killed"
        process = start(reference, configuration(reference, data, workers, ranks))
        if process.wait() != 0:
            raise SystemExit((reference / "log.txt").read_text()[-3000:])
        config = configuration(killed, data, workers, ranks)
        targets = sorted(rng.sample(range(SAVE_EVERY + 1, STEPS * EPOCHS - 1), kills // len(cases)))
        options: list[str] = []
        for target in targets:
            already = len(trace(killed))
            process = start(killed, config, *options)
            wait_for_step(process, killed, target, already)
            time.sleep(0.03 * rng.random())
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            options = ["--ckpt_path=last"]
            done += 1
        process = start(killed, config, *options)
        ended = process.wait()
        resumed = re.findall(r"checkpoint: .*\(step (\d+)\)", (killed / "log.txt").read_text())
        found = compare(killed, reference, ranks) if ended == 0 else f"ended with {ended}"
        print(f"{name}: killed from steps {targets} on, resumed at {resumed}: {found}", flush=True)
    print(f"{done} kills")


def signals(folder):
    """Signals to one rank, or to all processes."""
    wholes = {}
    for workers in (0, 2):
        wholes[workers] = reference = folder / f"signals-whole-{workers}"
        if start(reference, configuration(reference, "digits", workers, 2)).wait() != 0:
            raise SystemExit((reference / "log.txt").read_text()[-3000:])
    for name, number, who, workers in (
        ("SIGTERM to rank 0", signal.SIGTERM, 0, 0),
        ("SIGTERM to rank 1", signal.SIGTERM, 1, 0),
        ("SIGTERM to all and their dataloader workers", signal.SIGTERM, None, 2),
        ("SIGKILL of rank 0", signal.SIGKILL, 0, 0),
        ("SIGKILL of rank 1", signal.SIGKILL, 1, 0),
    ):
        run = folder / name.replace(" ", "-")
        config, reference = configuration(run, "digits", workers, 2), wholes[workers]
        process = start(run, config)
        wait_for_step(process, run, 25, 0)
        pids = [trace(run, rank)[-1]["pid"] for rank in range(2)]
        os.killpg(process.pid, number) if who is None else os.kill(pids[who], number)
        began = time.monotonic()
        status = process.wait()
        while any(map(alive, pids)) and time.monotonic() - began < 60:
            time.sleep(0.05)
        took, orphans = time.monotonic() - began, sum(map(alive, pids))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        again = start(run, config, "--ckpt_path=last").wait()
        at = re.findall(r"checkpoint: .*\(step (\d+)\)", (run / "log.txt").read_text())
        found = compare(run, reference, 2) if again == 0 else f"ended with {again}"
        print(f"{name}: status {status} after {took:.1f} s, {orphans} orphans; resumed at {at}: {found}", flush=True)


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]
    except FileNotFoundError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("saves", "resume", "signals"))
    parser.add_argument("--kills", type=int)
    parser.add_argument("--folder", type=Path, help="for the runs; a temporary one by default")
    given = parser.parse_args()
    if given.what == "saves":
        saves(given.kills or 200)
        return
    folder = given.folder or Path(tempfile.mkdtemp())
    signals(folder) if given.what == "signals" else resume(given.kills or 20, folder)


if __name__ == "__main__":
    main()
