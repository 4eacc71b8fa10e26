"""Overhead of NonFiniteGuard: processor time of a step with it, relative to a step without.

In one training, blocks of steps with and without the guard alternate, so that load on the machine slows both. Printed
is the median ratio of neighboring blocks.

    python benchmarks/guard_overhead.py --recipe gaussian
    python benchmarks/guard_overhead.py --inside           only the time within the guard, less sensitive to load
"""

import argparse
import statistics
import time
import warnings

import lightning.pytorch as L
import yaml

from benchmarks.common import quiet
from lightning_mi.bench.train import instantiate
from lightning_mi.training.non_finite import NonFiniteGuard
from lightning_mi.utilities.recipe_registry import find_file

BLOCK = 50  # steps; one of them is logged


class TakeTurns(L.Callback):
    """Switches the module's guard after each block and records the processor seconds of each block."""

    def __init__(self, policy):
        self.guards = [NonFiniteGuard(policy), NonFiniteGuard("off")]
        self.seconds = []
        self.started = 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx % BLOCK == 0:
            now = time.process_time()
            if batch_idx:
                self.seconds.append(now - self.started)
            pl_module._guard = self.guards[batch_idx // BLOCK % 2]
            pl_module._guard.start(trainer)
            self.started = time.process_time()


class Inside(L.Callback):
    """Records the seconds of each step, and those within its guard."""

    def __init__(self, policy):
        self.guard = NonFiniteGuard(policy)
        self.within, self.whole, self.spent = [], [], 0.0
        for name in ("begin_step", "check_views", "watch_loss", "decide"):
            setattr(self.guard, name, self.timed(getattr(self.guard, name)))

    def timed(self, method):
        def call(*args, **kwargs):
            started = time.perf_counter()
            result = method(*args, **kwargs)
            self.spent += time.perf_counter() - started
            return result

        return call

    def on_train_start(self, trainer, pl_module):
        pl_module._guard = self.guard
        self.guard.start(trainer)
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        now = time.perf_counter()
        self.within.append(self.spent)
        self.whole.append(now - self.started)
        self.spent, self.started = 0.0, now


def measure(recipe, policy, pairs):
    """Milliseconds of a step without the guard, and the ratio of each pair of blocks."""
    turns = TakeTurns(policy)
    train(recipe, pairs, turns)
    seconds = turns.seconds[2:]  # after the warm-up
    guarded, bare = seconds[::2], seconds[1::2]
    ratios = [w / o for w, o in zip(guarded, bare, strict=False)]
    return 1000 * statistics.median(bare) / BLOCK, ratios


def train(recipe, pairs, callback):
    config = yaml.safe_load(find_file(recipe, "recipe").path.read_text())
    steps = {"max_steps": BLOCK * (2 * pairs + 3), "max_epochs": -1, "log_every_n_steps": BLOCK, "limit_val_batches": 0}
    config["trainer"] |= {"accelerator": "cpu", "callbacks": []} | steps
    cli = instantiate(config, "/tmp", "run")
    cli.trainer.callbacks.append(callback)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="gaussian")
    parser.add_argument("--policy", default="raise", choices=("raise", "skip"))
    parser.add_argument("--pairs", type=int, default=60, help="pairs of blocks of 50 steps")
    parser.add_argument("--inside", action="store_true", help="measure only the time within the guard")
    options = parser.parse_args()
    quiet()
    warnings.simplefilter("ignore")
    if options.inside:
        inside = Inside(options.policy)
        train(options.recipe, options.pairs, inside)
        within, whole = statistics.median(inside.within), statistics.median(inside.whole)
        print(f"{options.recipe}: {1000 * whole:.2f} ms a step, {1e6 * within:.0f} us of it in the guard: ", end="")
        print(f"{within / whole:.2%} (medians of {len(inside.whole)} steps; {options.policy})")
        return
    step, ratios = measure(options.recipe, options.policy, options.pairs)
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"{options.recipe}: {step:.2f} ms a step; {options.policy}: ratio {median:.4f}")
    print(f"(middle half of {len(ratios)} pairs: {low:.4f} to {high:.4f})")


if __name__ == "__main__":
    main()
