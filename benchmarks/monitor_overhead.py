"""Overhead of StabilityMonitor: processor time of a step with it, relative to the same step without.

Short trainings with and without it alternate, so that a slow machine slows both. The median of the pairs' ratios is
printed. The set-up is not timed.

    python benchmarks/monitor_overhead.py                 the one-hot toy, which has the smallest steps
    python benchmarks/monitor_overhead.py --recipe gaussian
"""

import argparse
import statistics
import warnings

import yaml

from benchmarks.common import Clock, quiet
from lightning_mi.bench.train import instantiate
from lightning_mi.callbacks import StabilityMonitor
from lightning_mi.utilities.recipe_registry import find_file

WARM_UP = 50  # steps that are not timed


def seconds(recipe, steps, folder, monitored):
    config = yaml.safe_load(find_file(recipe, "recipe").path.read_text())
    config["trainer"] |= {"accelerator": "cpu", "max_steps": WARM_UP + steps, "log_every_n_steps": 50, "callbacks": []}
    cli, clock = instantiate(config, folder, "run"), Clock(WARM_UP)
    cli.trainer.callbacks += [StabilityMonitor()] * monitored + [clock]
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return clock.seconds


def measure(recipe="onehot", steps=1000, pairs=15, folder="/tmp"):
    """Milliseconds of a step without the monitor, and the ratio of each pair."""
    quiet()
    without, ratios = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for pair in range(pairs):
            order = (False, True) if pair % 2 else (True, False)
            found = {monitored: seconds(recipe, steps, folder, monitored) for monitored in order}
            without.append(1000 * found[False] / steps)
            ratios.append(found[True] / found[False])
    return statistics.median(without), ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="onehot")
    parser.add_argument("--steps", type=int, default=1000, help="timed steps of a training")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of trainings, with and without")
    options = parser.parse_args()
    step, ratios = measure(options.recipe, options.steps, options.pairs)
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"{options.recipe}: a step takes {step:.2f} ms without; with the monitor {median:.4f} times as long")
    print(f"(middle half of {len(ratios)} pairs: {low:.4f} to {high:.4f})")


if __name__ == "__main__":
    main()
