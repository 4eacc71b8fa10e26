"""The tables of docs/contrastive_memory.md: what queues, time steps and weighted negatives do to the estimate.

The critic is the exact log density ratio of 10-dimensional Gaussian pairs, so every error is the estimate's own.

    python benchmarks/contrastive_memory.py
"""

import argparse
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mi import bounds, pairs
from lightning_mi.bench.reports.tables import markdown_table
from lightning_mi.critics import AbstractCritic

DIM = 10


class ExactCritic(AbstractCritic):
    """The log density ratio of standard normal pairs with one correlation in all coordinates.

    Attributes:
        offset: The mean of y in the current step; 0 for a fixed encoder.
    """

    def __init__(self, rho: float) -> None:
        super().__init__()
        self.rho = rho
        self.offset = 0.0

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        return self.pairwise(x, y).diagonal()

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        y, rest = y - self.offset, 1 - self.rho**2
        squares = x.square().sum(1, keepdim=True) + y.square().sum(1)
        return -x.shape[1] * math.log(rest) / 2 - self.rho * (self.rho * squares - 2 * x @ y.T) / (2 * rest)


def queue_values(mi: float, n: int, size: int, shift: float, batches: int) -> list[Tensor]:
    """Values of InfoNCE and DV with a full queue; the mean of y moves by ``shift`` at each step."""
    rho = math.sqrt(1 - math.exp(-2 * mi / DIM))
    generator = torch.Generator().manual_seed(0)
    pairing = pairs.Queue(pairs.AllPairs(), size, DIM) if size else pairs.AllPairs()
    critic, found = ExactCritic(rho), []
    for step in range(size // n + batches):
        x, noise = torch.randn(2, n, DIM, generator=generator)
        critic.offset = shift * step
        scores = pairing(critic, x, rho * x + math.sqrt(1 - rho**2) * noise + critic.offset)
        if step >= size // n:
            found.append(torch.stack([bounds.InfoNCE()(scores).value, bounds.DV()(scores).value]))
    return list(torch.stack(found).T)


def weighted_values(options: dict[str, float], n: int, batches: int) -> list[Tensor]:
    """Value and objective of InfoNCE with weighted negatives, at 2 nats."""
    rho = math.sqrt(1 - math.exp(-2 * 2 / DIM))
    generator, bound, found = torch.Generator().manual_seed(0), bounds.InfoNCE(**options), []
    for _ in range(batches):
        x, noise = torch.randn(2, n, DIM, generator=generator)
        terms = bound(pairs.AllPairs()(ExactCritic(rho), x, rho * x + math.sqrt(1 - rho**2) * noise))
        found.append(torch.stack([terms.value, terms.objective]))
    return list(torch.stack(found).T)


def time_values(offset: int, same_sequence: bool, batches: int, rho: float = 0.9) -> list[Tensor]:
    """Values of InfoNCE and DV on 60 sequences of 12 times of an autoregression in one dimension."""
    pairing = pairs.TimeSteps(offset, same_sequence=same_sequence)
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(batches):
        noise = torch.randn(60, 12, generator=generator)
        steps = [noise[:, 0]]
        for t in range(1, 12):
            steps.append(rho * steps[-1] + math.sqrt(1 - rho**2) * noise[:, t])
        z = torch.stack(steps, dim=1).unsqueeze(-1)
        scores = pairing(ExactCritic(rho**offset), z, z)
        found.append(torch.stack([bounds.InfoNCE()(scores).value, bounds.DV()(scores).value]))
    return list(torch.stack(found).T)


def cells(values: Sequence[Tensor]) -> list[str]:
    """Mean and standard deviation over batches."""
    return [f"{value.mean():.2f} ± {value.std():.2f}" for value in values]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=400)
    batches = parser.parse_args().batches
    rows = [
        [
            f"{size:,}",
            f"{math.log(32 + size):.2f}",
            cells(queue_values(2.0, 32, size, 0.0, batches))[0],
            *cells(queue_values(5.0, 32, size, 0.0, batches)),
        ]
        for size in (0, 256, 1024, 4096, 16384)
    ]
    print(markdown_table(["Q", "ceiling", "InfoNCE, MI = 2", "InfoNCE, MI = 5", "DV, MI = 5"], rows), end="\n\n")
    rows = [
        [f"{shift:g}", *(cells(queue_values(5.0, 32, size, shift, batches))[0] for size in (1024, 4096))]
        for shift in (0.0, 0.001, 0.003, 0.01, 0.03)
    ]
    print(markdown_table(["shift a step", "Q = 1,024", "Q = 4,096"], rows), end="\n\n")
    truth = {offset: -0.5 * math.log(1 - 0.9 ** (2 * offset)) for offset in (1, 3)}
    rows = [
        [f"{offset}", f"{truth[offset]:.2f}", str(same), *cells(time_values(offset, same, batches))]
        for offset in (1, 3)
        for same in (False, True)
    ]
    print(markdown_table(["k", "truth", "same_sequence", "InfoNCE", "DV"], rows), end="\n\n")
    weights: list[dict[str, float]] = [
        {},
        {"hardness": 0.5},
        {"hardness": 1.0},
        {"debias": 0.01, "lowest_score": -20.0},
        {"debias": 0.1, "lowest_score": -20.0},
    ]
    print(
        markdown_table(
            ["options", "value", "objective"],
            [[str(option), *cells(weighted_values(option, 64, batches))] for option in weights],
        )
    )


if __name__ == "__main__":
    main()
