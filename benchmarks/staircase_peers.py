"""Speed and error of lightning_mi and torch-mist on the Gaussian staircase, with their trainers and in a plain loop.

Equal critic sizes, batches, pairs (all) and numbers of steps, on one thread or GPU, one after the other. The trainers
log every 50 steps, the default of Lightning; ours logs to TensorBoard.

torch-mist needs another NumPy, so it needs a separate environment:

    python -m venv peer && peer/bin/pip install torch-mist pandas "numpy<2"
    python benchmarks/staircase_peers.py --peer peer/bin/python
"""

import argparse
import math
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from benchmarks.common import Clock, add_device, ask_peer, quiet, show
from lightning_mi.bench.recorder import Recorder
from lightning_mi.bench.train import instantiate
from lightning_mi.utilities.recipe_registry import find_file

LEVELS = [2.0, 4.0, 6.0, 8.0, 10.0]


class Case(NamedTuple):
    """A bound, the corresponding loss of torch-mist, and the weight of the regularizer for each critic."""

    bound: str
    peer: str
    joint: float
    separable: float
    arguments: tuple[tuple[str, str], ...] = ()  # of the bound


CASES = [
    Case("DV", "mine", joint=1.0, separable=0.1),
    Case("NWJ", "nwj", joint=1.0, separable=0.1),
    Case(
        "SMILE", "smile", joint=0.001, separable=0.001, arguments=(("objective", "js"),)
    ),  # the objective of torch-mist
    Case("JS", "js", joint=0.001, separable=0.001),
    Case("InfoNCE", "infonce", joint=0.0, separable=0.0),
]
CRITICS = {"joint": "JointCritic", "separable": "SeparableCritic"}
RATE = 0.0005


def ours(device: str, case: Case, critic: str, steps: int, batch: int, seed: int) -> dict[str, Any]:
    """Seconds per step of lightning_mi, and the value and plug-in estimate of every batch."""
    weight: float = getattr(case, critic)
    config = yaml.safe_load(find_file("gaussian", "recipe").path.read_text())
    config["seed_everything"] = seed
    config["trainer"] |= {"accelerator": device, "devices": 1, "callbacks": [], "log_every_n_steps": 50}
    config["data"]["init_args"] |= {"steps_per_mi": steps, "seed": seed, "batch_size": batch, "mi": LEVELS}
    model = config["model"]["init_args"]
    model["critic"]["class_path"] = f"lightning_mi.critics.{CRITICS[critic]}"
    model["bound"] = {"class_path": f"lightning_mi.bounds.{case.bound}", "init_args": dict(case.arguments)}
    model["regularizer"] = (
        {"class_path": "lightning_mi.regularizers.Squared", "init_args": {"weight": weight}} if weight else None
    )
    model["optimizer"]["init_args"]["lr"] = RATE
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cli, clock, recorder = instantiate(config, Path(folder), "run"), Clock(device=device), Recorder()
        cli.trainer.callbacks += [recorder, clock]
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    curves = recorder.curves()
    return {"seconds": clock.seconds / len(curves["value"]), "values": curves["value"], "plug_in": curves["plug_in"]}


def theirs(python: str, device: str, loss: str, critic: str, steps: int, batch: int, seed: int) -> dict[str, Any]:
    """Seconds per step of torch-mist in a loop and with its trainer, and the estimate of every batch."""
    options = {"device": device, "loss": loss, "critic": critic, "steps": steps, "batch": batch, "rate": RATE}
    return ask_peer(python, "torch_mist_staircase.py", **options, seed=seed, levels=LEVELS)


def errors(values: Sequence[float], steps: int) -> list[float]:
    """Mean squared error on the second half of each level."""
    levels = np.asarray(values, dtype=np.float64).reshape(len(LEVELS), steps)[:, steps // 2 :]
    mean_squares: list[float] = ((levels - np.array(LEVELS)[:, None]) ** 2).mean(axis=1).tolist()
    return mean_squares


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer", help="the Python of an environment with torch-mist; without it, torch-mist is not measured"
    )
    parser.add_argument("--steps", type=int, default=1000, help="training steps of each level")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--critics", nargs="+", default=list(CRITICS), choices=CRITICS)
    parser.add_argument("--losses", nargs="+", default=[case.bound for case in CASES])
    add_device(parser)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    quiet()
    heading = ["critic", "loss", "lambda", "steps a second", "over its loop", "over its trainer"]
    heading += [f"MSE at {level:g}" for level in LEVELS]
    rows = []
    for critic in options.critics:
        for case in CASES:
            if case.bound not in options.losses:
                continue
            weight = f"{regularized:g}" if (regularized := getattr(case, critic)) else "-"
            result = ours(options.device, case, critic, options.steps, options.batch, options.seed)
            runs: list[tuple[str, str, float, Sequence[float] | None]]
            runs = [(f"{case.bound}, per batch", weight, result["seconds"], result["values"])]
            if regularized:
                runs.append((f"{case.bound}, plug-in", weight, result["seconds"], result["plug_in"]))
            in_loop = by_trainer = math.nan
            if options.peer:
                of_peer = options.device, case.peer, critic, options.steps, options.batch, options.seed
                peer = theirs(options.peer, *of_peer)
                in_loop, by_trainer = peer["in_loop"], peer["by_trainer"]
                runs.append((f"torch-mist {case.peer}, loop", "-", in_loop, peer["values"]))
                runs.append((f"torch-mist {case.peer}, trainer", "-", by_trainer, None))
            for name, lambda_, seconds, values in runs:
                speeds = [f"{1 / seconds:.0f}", f"{in_loop / seconds:.2f}", f"{by_trainer / seconds:.2f}"]
                levels = ["-"] * len(LEVELS)
                if values is not None:
                    levels = [f"{error:.2f}" for error in errors(values, options.steps)]
                rows.append([critic, name, lambda_, *speeds, *levels])
                print("#", *rows[-1], flush=True)
    show(heading, rows, options.csv)


if __name__ == "__main__":
    main()
