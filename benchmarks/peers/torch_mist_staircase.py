"""The Gaussian staircase by torch-mist, in an environment of its own: needs torch-mist, pandas and numpy<2, not us.

Prints one JSON object: seconds a step in a bare loop and by torch-mist's own trainer, of the processor or of a GPU by
the wall, and the estimate of every batch in the loop.
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
MOST_STEPS = 200  # of a stair by the trainer, which only its speed is asked of


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
    """The batches, as its trainer takes them; it looks through all of them for NaN before it starts."""

    def __init__(self, options):
        self.options, self.started = options, 0.0
        self.steps = min(options.steps, MOST_STEPS)

    def __len__(self):
        return len(self.options.levels) * self.steps

    def __iter__(self):
        self.started = seconds_now(self.options.device)  # the last time is the training's
        for x, y in batches(self.options.levels, self.steps, self.options.batch, self.options.seed):
            yield {"x": x, "y": y}


def estimator_of(options):
    torch.manual_seed(options.seed)
    make = getattr(estimators, options.loss)
    # All pairs of different samples are marginal; InfoNCE's rows hold their joint pair too, which is its default.
    negatives = 0 if options.loss == "infonce" else -1
    widths = HIDDEN if options.critic == "joint" else [*HIDDEN, 32]  # features of separable critics, as ours
    return make(x_dim=DIM, y_dim=DIM, hidden_dims=widths, critic_type=options.critic, neg_samples=negatives)


def by_loop(options):
    """Seconds a step and the estimates of a loop that does nothing else."""
    estimator = estimator_of(options).to(options.device)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=options.rate)
    values = []
    started = seconds_now(options.device)
    for x, y in batches(options.levels, options.steps, options.batch, options.seed):
        x, y = x.to(options.device), y.to(options.device)
        optimizer.zero_grad()
        loss = estimator.loss(x, y)
        # Read before the step, as our values are; losses that are the estimate are not computed twice.
        value = -loss if options.loss in ("nwj", "infonce") else estimator.mutual_information(x, y)
        loss.backward()
        optimizer.step()
        values.append(value.detach())
    return (seconds_now(options.device) - started) / len(values), torch.stack(values).tolist()


def by_trainer(options):
    """Seconds a step of torch-mist's own trainer, which reads the estimate of every batch and logs as often as ours."""
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
    in_loop, values = by_loop(options)
    print(json.dumps({"in_loop": in_loop, "by_trainer": by_trainer(options), "values": values}))


if __name__ == "__main__":
    main()
