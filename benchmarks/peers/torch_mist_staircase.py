"""The Gaussian staircase with torch-mist. Needs an environment with torch-mist, pandas and numpy<2, not lightning_mi.

Prints one JSON object: seconds per step in a loop and with torch-mist's trainer (CPU time, or wall time of a GPU), and
the estimate of every batch in the loop.
"""

import argparse
import json
import math
import time

import torch
from torch.utils.data import DataLoader, IterableDataset
from torch_mist import estimators
from torch_mist.utils.logging import PandasLogger
from torch_mist.utils.train.mi_estimator import train_mi_estimator

HIDDEN = [256, 256]
DIM = 20
MOST_STEPS = 200  # per level with the trainer, of which only the speed is measured


def seconds_now(device):
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def batches(levels, steps, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    for mi in levels:
        rho = math.sqrt(1 - math.exp(-2 * mi / DIM))
        for _ in range(steps):
            x, noise = (torch.randn(batch, DIM, generator=generator) for _ in range(2))
            yield x, rho * x + math.sqrt(1 - rho * rho) * noise


class Stream(IterableDataset):
    """The batches in the form of torch-mist's trainer, which first iterates over all of them to check for NaN."""

    def __init__(self, options):
        self.options, self.started = options, 0.0
        self.steps = min(options.steps, MOST_STEPS)

    def __len__(self):
        return len(self.options.levels) * self.steps

    def __iter__(self):
        self.started = seconds_now(self.options.device)  # the last iteration is the training
        for x, y in batches(self.options.levels, self.steps, self.options.batch, self.options.seed):
            yield {"x": x, "y": y}


def estimator_of(options):
    torch.manual_seed(options.seed)
    make = getattr(estimators, options.loss)
    # Marginal pairs are all pairs of different samples; rows of InfoNCE also contain the joint pair, the default.
    negatives = 0 if options.loss == "infonce" else -1
    widths = (
        HIDDEN if options.critic == "joint" else [*HIDDEN, 32]
    )  # as many features of separable critics as lightning_mi
    return make(x_dim=DIM, y_dim=DIM, hidden_dims=widths, critic_type=options.critic, neg_samples=negatives)


def time_loop(options):
    """Seconds per step and estimates of a plain loop."""
    estimator = estimator_of(options).to(options.device)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=options.rate)
    values = []
    started = seconds_now(options.device)
    for x, y in batches(options.levels, options.steps, options.batch, options.seed):
        x, y = x.to(options.device), y.to(options.device)
        optimizer.zero_grad()
        loss = estimator.loss(x, y)
        # The estimate before the update, as in lightning_mi; two losses are the negative estimate.
        value = -loss if options.loss in ("nwj", "infonce") else estimator.mutual_information(x, y)
        loss.backward()
        optimizer.step()
        values.append(value.detach())
    return (seconds_now(options.device) - started) / len(values), torch.stack(values).tolist()


def time_trainer(options):
    """Seconds per step of torch-mist's trainer, which computes the estimate of every batch and logs every 50 steps."""
    stream = Stream(options)
    train_mi_estimator(
        estimator_of(options),
        DataLoader(stream, batch_size=None),
        valid_percentage=0,
        max_epochs=1,
        optimizer_params={"lr": options.rate},
        device=options.device,
        verbose=False,
        logger=PandasLogger(log_every=50),
    )
    return (seconds_now(options.device) - stream.started) / len(stream)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--loss", required=True)
    parser.add_argument("--critic", required=True)
    parser.add_argument("--levels", type=float, nargs="+", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    in_loop, values = time_loop(options)
    print(json.dumps({"in_loop": in_loop, "by_trainer": time_trainer(options), "values": values}))


if __name__ == "__main__":
    main()
