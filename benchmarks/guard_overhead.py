"""What the guard against values that are not finite costs: processor time of a step with it, over that without.

python benchmarks/guard_overhead.py --recipe gaussian
"""

import argparse
import logging
import statistics
import warnings

import torch
import yaml

from benchmarks.monitor_overhead import WARM_UP, Clock
from lightning_mi.bench.cell import instantiate
from lightning_mi.recipe_files import find_file


def seconds(recipe, steps, policy):
    config = yaml.safe_load(find_file(recipe, "recipe").path.read_text())
    config["trainer"] |= {"accelerator": "cpu", "max_steps": WARM_UP + steps, "log_every_n_steps": 50, "callbacks": []}
    config["trainer"]["max_epochs"] = -1
    config["model"]["init_args"]["on_non_finite"] = policy
    cli, clock = instantiate(config, "/tmp", "run"), Clock()
    cli.trainer.callbacks.append(clock)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return clock.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="gaussian")
    parser.add_argument("--policy", default="raise", choices=("raise", "skip"))
    parser.add_argument("--steps", type=int, default=300, help="timed steps of a training")
    parser.add_argument("--pairs", type=int, default=9, help="of trainings, with and without")
    options = parser.parse_args()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ratios, without = [], []
    for pair in range(options.pairs):
        order = ("off", options.policy) if pair % 2 else (options.policy, "off")
        found = {policy: seconds(options.recipe, options.steps, policy) for policy in order}
        ratios.append(found[options.policy] / found["off"])
        without.append(1000 * found["off"] / options.steps)
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"{options.recipe}: {statistics.median(without):.2f} ms a step; {options.policy}: ratio {median:.4f}")
    print(f"(middle half of {len(ratios)} pairs: {low:.4f} to {high:.4f})")


if __name__ == "__main__":
    main()
