"""Gradients of several processes against those of one on the same batch, as Markdown tables.

    python benchmarks/distributed_exactness.py

For every bound, pairing and regularizer: the gradient of loss + penalty, averaged over processes as DDP does, against
the gradient that one process has on the whole batch: of the encoder, the critic, its scale and offset, and a learned
baseline. Errors are relative, of all parameters in one vector and of the worst parameter by itself. A parameter whose
gradient is zero but for rounding is not looked at by itself: the offset, where the bound does not change with it.
"""

import argparse
import copy
import datetime
import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from lightning_mi import MIEstimationModule, Scores, bounds, critics, pairs, regularizers
from lightning_mi.bench.reports.tables import markdown_table
from lightning_mi.scores.batch_shard import gather
from lightning_mi.utilities.distributed import all_reduce_mean_

CLASSES, PRIOR = 3, (0.5, 0.2, 0.3)
BOUNDS: dict[str, Callable[..., bounds.AbstractBound]] = {
    "DV": bounds.DV,
    "MINE": partial(bounds.MINE, ema_rate=0.25),
    "SMILE": partial(bounds.SMILE, tau=2.0),
    "SMILE(js)": partial(bounds.SMILE, tau=2.0, objective="js"),
    "SMILE(clip_joint)": partial(bounds.SMILE, tau=2.0, clip_joint=True),
    "InfoNCE": bounds.InfoNCE,
    "NWJ": bounds.NWJ,
    "NWJ(cap=None)": partial(bounds.NWJ, cap=None),
    "TUBA(2.5)": partial(bounds.TUBA, baseline=2.5),
    "TUBA(learned)": bounds.TUBA,  # the baseline depends on the pairing
    "JS": bounds.JS,
    "ReleasedNWJ": partial(bounds.ReleasedNWJ, clip=2.0),
    "ReleasedTUBA": partial(bounds.ReleasedTUBA, clip=2.0),
    "ReleasedJS": bounds.ReleasedJS,
}
PAIRINGS: dict[str, Callable[[], pairs.AbstractPairing]] = {
    "AllPairs": pairs.AllPairs,
    "AllPairs(tiles)": partial(pairs.AllPairs, tile_bytes=100),
    "TwoViews": pairs.TwoViews,
    "TwoViews(tiles)": partial(pairs.TwoViews, tile_bytes=100),
    "SameLabel": pairs.SameLabel,
    "SameLabel(exclude)": partial(pairs.SameLabel, exclude_same_label=True),
    "EnumeratedLabels": partial(pairs.EnumeratedLabels, CLASSES),
    "EnumeratedLabels(prior)": partial(pairs.EnumeratedLabels, CLASSES, PRIOR),
    "Derangement": pairs.Derangement,
    "IndependentMarginal": pairs.IndependentMarginal,
}
REGULARIZERS: dict[str, Callable[[], regularizers.AbstractRegularizer] | None] = {
    "none": None,
    **{
        f"{make.__name__}({scale})": partial(make, weight=0.7, scale=scale)
        for make in (regularizers.Squared, regularizers.Absolute, regularizers.Huber)
        for scale in ("log", "linear")
    },
}
SHARES = [(12,), (6, 6), (4, 4, 4), (3, 3, 3, 3), (8, 5), (8, 0), (0, 2, 7), (2, 5, 0, 4)]
DIM = 4


class Case(NamedTuple):
    bound: str
    pairing: str
    regularizer: str


class Result(NamedTuple):
    case: Case
    shares: tuple[int, ...]
    error: float  # of the gradient
    parameter_error: float  # of the worst parameter's
    loss_error: float
    equal: bool  # terms, loss, MINE's average and gradients, bit for bit on all processes


def cases(bound_names=BOUNDS, pairing_names=PAIRINGS, regularizer_names=REGULARIZERS) -> list[Case]:
    """Every combination that exists: InfoNCE needs rows."""
    listed = (Case(*names) for names in itertools.product(bound_names, pairing_names, regularizer_names))
    without_rows = ("Derangement", "IndependentMarginal")
    return [case for case in listed if not (case.bound == "InfoNCE" and case.pairing in without_rows)]


def module_of(case: Case, dtype: torch.dtype) -> MIEstimationModule:
    torch.manual_seed(0)
    labels = case.pairing.startswith("Enumerated")
    baseline = {}
    if case.bound == "TUBA(learned)":
        baseline = {"baseline": nn.Embedding(CLASSES, 1) if labels else nn.Linear(DIM, 1)}
    regularizer = REGULARIZERS[case.regularizer]
    critic = critics.LabelCritic() if labels else critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4)
    module = MIEstimationModule(
        critics.CalibratedCritic(critic, scale=True, offset_unit=1.0),
        BOUNDS[case.bound](**baseline),
        pairs=PAIRINGS[case.pairing](),
        regularizer=None if regularizer is None else regularizer(),
        encoder=nn.Sequential(nn.Linear(DIM, 6), nn.Tanh(), nn.Linear(6, CLASSES if labels else DIM)),
    ).to(dtype)
    module.critic.calibrated.fill_(True)
    with torch.no_grad():
        module.critic.offset.fill_(0.2)
        module.critic.log_scale.fill_(0.4)
        for layer in (*module.encoders.modules(), *module.critic.modules()):
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(2)  # As they come, the scores of all pairs are nearly equal.
    if isinstance(module.bound, bounds.MINE):  # An average that this batch moves, and that is not the batch's own.
        module.bound.log_average.fill_(0.3)
        module.bound.num_updates.fill_(3)
    return module


def batch_of(case: Case, rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    x, y, x_marginal, y_marginal = torch.randn(4, rows, DIM, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.arange(rows) % CLASSES
    if case.pairing == "IndependentMarginal":
        return x, y, x_marginal, y_marginal
    return (x, labels) if PAIRINGS[case.pairing]().takes_labels else (x, 0.8 * x + 0.6 * y)


class Shuffled(pairs.AbstractPairing):
    """One process's pairs for Derangement: the shuffles that the processes have drawn."""

    num_views = 2

    def __init__(self, shuffle: torch.Tensor) -> None:
        super().__init__()
        self.shuffle = shuffle

    def forward(self, critic, x, y):
        return Scores.from_samples(
            critic.paired(x, y), critic.paired(x, y[self.shuffle]), y=y, marginal_columns=self.shuffle
        )


def gradient(module: MIEstimationModule, loss: torch.Tensor) -> torch.Tensor:
    """That of all parameters in one vector."""
    module.zero_grad()
    loss.backward()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in module.parameters()])


def readings(module: MIEstimationModule, output) -> torch.Tensor:
    """The terms, the loss and what changes as they are read."""
    averages = [module.bound.log_average] if isinstance(module.bound, bounds.MINE) else []
    return torch.stack([*output.terms, output.loss, *averages]).detach()


def compare(case: Case, shares: tuple[int, ...], rank: int, dtype: torch.dtype) -> Result:
    module = module_of(case, dtype)
    alone = copy.deepcopy(module)
    batch = batch_of(case, sum(shares), dtype)
    start = sum(shares[:rank])
    output = module.step(tuple(part[start : start + shares[rank]] for part in batch))
    own = all_reduce_mean_(gradient(module, output.loss))
    alone.pairs.gather = False
    if case.pairing.endswith("(tiles)"):
        alone.pairs.tile_bytes = math.inf
    if case.pairing == "Derangement":
        shuffles: list = [None] * len(shares)
        dist.all_gather_object(shuffles, output.scores._layout.marginals._columns + start)
        alone.pairs = Shuffled(torch.cat(shuffles))
    expected = alone.step(batch)
    theirs = gradient(alone, expected.loss)
    sizes, rounding = [p.numel() for p in module.parameters()], 1e4 * torch.finfo(dtype).eps
    each = [(a - b, b) for a, b in zip(own.split(sizes), theirs.split(sizes), strict=True)]
    parameter_error = max(float(d.norm() / g.norm()) for d, g in each if g.norm() > rounding * theirs.norm())
    read, truth = readings(module, output), readings(alone, expected)
    loss_error = ((read - truth).abs() / truth.abs().clamp(min=1)).max()
    everywhere = gather(torch.cat([read, own]))
    equal = bool((everywhere == everywhere[0]).all())
    error = float((own - theirs).norm() / theirs.norm())
    return Result(case, shares, error, parameter_error, float(loss_error), equal)


def _work(rank: int, shares: tuple[int, ...], chosen: list[Case], dtype: torch.dtype, folder: str) -> None:
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=60)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(shares), timeout=timeout
    )
    results = [compare(case, shares, rank, dtype) for case in chosen]
    if rank == 0:
        torch.save([(tuple(case), *rest) for case, *rest in results], f"{folder}/results.pt")
    dist.barrier()
    dist.destroy_process_group()


def run(chosen: Sequence[Case], shares: tuple[int, ...], dtype: torch.dtype) -> list[Result]:
    """The results of one process for each share."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_work, (shares, list(chosen), dtype, folder), nprocs=len(shares), start_method="fork")
        results = torch.load(os.path.join(folder, "results.pt"), weights_only=True)
    return [Result(Case(*case), *rest) for case, *rest in results]


def tables(results: Sequence[Result], other: Sequence[Result]) -> str:
    """Errors by bound and pairing in float64, and by the processes' shares in both precisions."""

    def worst(chosen, name="error"):
        found = [getattr(result, name) for result in chosen]
        return f"{max(found):.0e}" if found else "-"

    by_bound = [
        [bound, *(worst([r for r in results if r.case[:2] == (bound, pairing)]) for pairing in PAIRINGS)]
        for bound in dict.fromkeys(r.case.bound for r in results)
    ]
    by_shares = []
    for shares in dict.fromkeys(r.shares for r in results):
        double, single = ([r for r in some if r.shares == shares] for some in (results, other))
        cells = [" + ".join(map(str, shares)), len(double), worst(double), worst(double, "parameter_error")]
        cells.append(worst(double, "loss_error"))
        equal = sum(r.equal for r in (*double, *single))
        by_shares.append([*map(str, cells), worst(single), f"{equal} of {len(double) + len(single)}"])
    head = ["rows on each process", "cases", "gradient", "worst parameter", "terms and loss", "gradient, float32"]
    head.append("same bits everywhere")
    return markdown_table(["bound", *PAIRINGS], by_bound) + "\n\n" + markdown_table(head, by_shares)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bounds", nargs="+", default=list(BOUNDS), choices=BOUNDS)
    options = parser.parse_args(arguments)
    chosen, start = cases(options.bounds), time.monotonic()
    double, single = (
        [result for shares in SHARES for result in run(chosen, shares, dtype)]
        for dtype in (torch.float64, torch.float32)
    )
    print(tables(double, single))
    print(f"\n{len(double) + len(single)} comparisons in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
