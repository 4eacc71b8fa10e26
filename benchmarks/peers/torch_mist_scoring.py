"""Forward and backward of torch-mist's losses. Needs an environment with torch-mist, pandas, numpy<2, not lightning_mi.

Prints one JSON object: milliseconds of the fastest step (CPU time, or wall time of a GPU), and the peak memory of a
step minus the memory before it, MB.
"""

import argparse
import json
import math
import resource
from pathlib import Path

import torch
from torch_mist.critic import SeparableCritic, joint_critic
from torch_mist.estimators.discriminative import implementations
from torch_mist_staircase import HIDDEN, seconds_now  # beside this script


def step(options, n):
    torch.manual_seed(0)
    # Alternating batches, because torch-mist caches the scores of the last one.
    batches = [(0.3 * torch.randn(2, n, options.dim)).to(options.device) for _ in range(2)]
    for batch in batches:
        batch.requires_grad_(options.critic == "separable")
    critic = SeparableCritic() if options.critic == "separable" else joint_critic(options.dim, options.dim, HIDDEN)
    negatives = 0 if options.loss == "InfoNCE" else -1
    estimator = getattr(implementations, options.loss)(critic=critic, neg_samples=negatives).to(options.device)

    def run():
        batches.append(batches.pop(0))
        for leaf in (*batches, *estimator.parameters()):
            leaf.grad = None
        x, y = batches[0]
        estimator.loss(x, y).backward()

    return run


def peak(options):
    if options.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--loss", required=True)
    parser.add_argument("--critic", choices=["separable", "joint"], required=True)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    step(options, n=4)()  # warm-up: the first step loads libraries
    run = step(options, options.n)
    if options.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    run()
    megabytes = (peak(options) - before) / 1e6
    fastest, rounds, end = math.inf, 0, seconds_now(options.device) + options.seconds
    while rounds < 3 or seconds_now(options.device) < end:
        started = seconds_now(options.device)
        run()
        fastest = min(fastest, seconds_now(options.device) - started)
        rounds += 1
    print(json.dumps({"milliseconds": 1000 * fastest, "megabytes": megabytes}))


if __name__ == "__main__":
    main()
