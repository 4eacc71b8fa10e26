"""VIB and CEB against the exact information-bottleneck curve of a Gaussian, as a Markdown table.

    python benchmarks/bottleneck_curve.py

x and y are five pairs of normals with different correlations, and x is rotated. The encoder is linear with constant
noise, so I(X; Z) and I(Z; Y) of the trained encoder are exact log-determinants. The gap is the distance below the
highest I(Z; Y) at the same I(X; Z), Chechik et al. 2005.
"""

import argparse
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.common import quiet
from lightning_mi import GaussianBottleneck
from lightning_mi.bench.reports.tables import markdown_table
from lightning_mi.critics import GaussianConditional
from lightning_mi.data import laws

RHOS = (0.97, 0.9, 0.75, 0.5, 0.2)
BETAS = (0.02, 0.1, 0.3, 0.5, 0.7)  # VIB's; CEB's weight for the same point is beta / (1 - beta)


class LinearNoise(nn.Module):
    """Mean W x + b and a constant log-variance: the parameters of a linear Gaussian channel."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(in_dim, out_dim)
        self.log_variance = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(x)
        return torch.cat([mean, self.log_variance.expand_as(mean)], dim=1)


def make_law() -> laws.Gaussian:
    """Pairs of normals with correlations ``RHOS``, and x rotated."""
    eye, cross = torch.eye(len(RHOS), dtype=torch.float64), torch.tensor(RHOS, dtype=torch.float64).diag()
    rotation = torch.linalg.qr(torch.randn(eye.shape, generator=torch.Generator().manual_seed(1)).double()).Q
    covariance = torch.cat([torch.cat([eye, rotation @ cross], 1), torch.cat([(rotation @ cross).T, eye], 1)])
    return laws.Gaussian(covariance.tolist(), dim_x=len(RHOS))


def train(law: laws.Gaussian, method: str, beta: float, steps: int, batch_size: int, seed: int) -> GaussianBottleneck:
    """Train encoder, decoder and, for CEB, the backward encoder on fresh samples."""
    torch.manual_seed(seed)
    dim, generator = len(RHOS), torch.Generator().manual_seed(seed)
    backward = GaussianConditional(LinearNoise(dim, dim)) if method == "CEB" else None
    bottleneck = GaussianBottleneck(GaussianConditional(LinearNoise(dim, dim)), backward)
    decoder = GaussianConditional(LinearNoise(dim, dim))
    weight = beta / (1 - beta) if method == "CEB" else beta
    optimizer = torch.optim.Adam([*bottleneck.parameters(), *decoder.parameters()], lr=2e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x, y = (view.float() for view in law.sample(batch_size, generator))
        z, rate = bottleneck(x, y)
        loss = weight * rate.mean() - decoder.paired(z, y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return bottleneck


@torch.no_grad()
def true_point(bottleneck: GaussianBottleneck, law: laws.Gaussian) -> laws.BottleneckPoint:
    """Exact I(X; Z) and I(Z; Y) of a linear encoder."""
    dim, covariance = len(RHOS), law.covariance_matrix()
    network = bottleneck.encoder.network
    assert isinstance(network, LinearNoise)
    weight, noise = network.mean.weight.double(), network.log_variance.double().exp().diag()
    of_x, cross, of_y = covariance[:dim, :dim], covariance[:dim, dim:], covariance[dim:, dim:]
    given_y = of_x - cross @ torch.linalg.solve(of_y, cross.T)
    total, conditional, alone = (
        torch.logdet(matrix)
        for matrix in (weight @ of_x @ weight.T + noise, weight @ given_y @ weight.T + noise, noise)
    )
    return laws.BottleneckPoint(float(total - alone) / 2, float(total - conditional) / 2)


def rows(betas: Sequence[float], steps: int, batch_size: int, seed: int) -> list[list[str]]:
    """A row for each method and weight."""
    law, table = make_law(), []
    for method in ("VIB", "CEB"):
        for beta in betas:
            started = time.process_time()
            point = true_point(train(law, method, beta, steps, batch_size, seed), law)
            seconds = time.process_time() - started
            best = laws.gaussian_bottleneck_at(law, point.rate)
            optimum = laws.gaussian_bottleneck(law, beta)
            cells = [*point, best.relevance - point.relevance, *optimum]
            table.append([method, f"{beta:g}", *(f"{cell + 0.0:.3f}" for cell in cells), f"{seconds:.0f}"])
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--betas", type=float, nargs="+", default=list(BETAS), help="VIB's weights of the rate")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    quiet()
    heading = ["method", "beta", "I(X; Z)", "I(Z; Y)", "gap", "optimal I(X; Z)", "optimal I(Z; Y)", "CPU seconds"]
    print(markdown_table(heading, rows(options.betas, options.steps, options.batch_size, options.seed)))


if __name__ == "__main__":
    main()
