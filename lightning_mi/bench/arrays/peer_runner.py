"""Estimate MI with another package. Runs in that package's environment, which need not have lightning_mi.

`python peer_runner.py PEER` prints the version of the package. `python peer_runner.py PEER FILE.npz` prints a JSON
object: `mi` in nats, and `cpu_seconds` of the estimation without the imports.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

Estimate = Callable[[Any, Any, int], float]  # of x, y and the seed, in nats


def neuralmi() -> Estimate:
    """NeuralMI's `estimate` mode with its defaults, in nats."""
    import neural_mi

    def estimate(x: Any, y: Any, seed: int) -> float:
        # Without `processing`, a row is a sample. `Processing(x_params={"window_size": 1})` makes windows of two rows.
        output = neural_mi.Output(units="nats")
        result = neural_mi.run(x, y, mode="estimate", output=output, seed=seed, device="cpu", show_progress=False)
        if result.details.get("input_dim_x", x.shape[1]) != x.shape[1]:
            raise ValueError(f"NeuralMI made windows of the {x.shape[1]} columns of x")
        return float(result.mi_estimate)

    return estimate


def torch_mist() -> Estimate:
    """torch-mist's `estimate_mi` with its defaults: SMILE. It asks for test data: the last fifth of the samples."""
    import torch
    from torch_mist import estimate_mi

    def estimate(x: Any, y: Any, seed: int) -> float:
        torch.manual_seed(seed)
        np.random.seed(seed)
        x, y = x.astype("float32"), y.astype("float32")
        train = len(x) - len(x) // 5
        value = estimate_mi((x[:train], y[:train]), test_data=(x[train:], y[train:]), verbose=False)
        return float(value[0] if isinstance(value, tuple) else value)

    return estimate


def bmi() -> Estimate:
    """benchmark-mi's `InfoNCEEstimator` with its defaults."""
    from bmi.estimators import InfoNCEEstimator

    def estimate(x: Any, y: Any, seed: int) -> float:
        return float(InfoNCEEstimator(seed=seed, verbose=False).estimate(x, y))

    return estimate


PEERS = {"neuralmi": (neuralmi, "neural_mi"), "torch-mist": (torch_mist, "torch-mist"), "bmi": (bmi, "benchmark-mi")}


def _cpu_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _end_with_stdin() -> None:
    """End this process when its parent, which never writes to standard input, has ended."""
    os.read(0, 1)
    os._exit(1)


def main(peer: str, path: str = "") -> None:
    """Print the version of a peer, or its estimate for the arrays in an npz file."""
    load, distribution = PEERS[peer]
    if not path:
        print(version(distribution))
        return
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    with np.load(path) as arrays:
        x, y, seed = arrays["x"], arrays["y"], int(arrays["seed"])
    with contextlib.redirect_stdout(sys.stderr):  # packages print their progress
        estimate = load()
        start = _cpu_seconds()
        mi = estimate(x, y, seed)
        seconds = _cpu_seconds() - start
    print(json.dumps({"mi": mi, "cpu_seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
