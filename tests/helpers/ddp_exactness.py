"""Gradients of several ranks against those of one process on the global batch.

For every bound, pairing and regularizer of the spec lists: the gradient of loss + penalty, averaged over ranks as DDP
does, against the gradient of one process: of the encoder, the critic, its scale and offset, and a learned baseline.
Errors are relative: of all parameters in one vector, and of the worst single parameter. A parameter whose gradient is
zero up to rounding is not compared on its own: the offset, if the bound is invariant to it.
"""

import copy
import dataclasses
import datetime
import itertools
import math
import os
import tempfile
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
from tests.helpers import pairs_by_definition, specs

CLASSES, PRIOR = 4, (0.4, 0.1, 0.3, 0.2)
BOUNDS = {spec.name: spec for spec in specs.BOUNDS}
PAIRINGS = {spec.name: spec for spec in specs.PAIRINGS}
for name, make in {
    "AllPairs(tiles)": partial(pairs.AllPairs, tile_bytes=100),
    "TwoViews(tiles)": partial(pairs.TwoViews, tile_bytes=100),
    "AllPairs(ring)": partial(pairs.AllPairs, gather="ring", tile_bytes=100),
    "TwoViews(ring)": partial(pairs.TwoViews, gather="ring", tile_bytes=100),
    "SameLabel(exclude)": partial(pairs.SameLabel, exclude_same_label=True),
    "EnumeratedLabels(prior)": partial(pairs.EnumeratedLabels, CLASSES, PRIOR),
}.items():
    PAIRINGS[name] = dataclasses.replace(PAIRINGS[name.split("(")[0]], name=name, make=make)
for name, make in {
    "TwoTowers": pairs.TwoTowers,
    "TwoTowers(tiles)": partial(pairs.TwoTowers, tile_bytes=100),
    "SameId": pairs.SameId,
    "SameLabel(anchor)": partial(pairs.SameLabel, weighting="anchor", ignore_index=2),
}.items():
    inputs = {"SameId": "x, y, labels", "SameLabel(anchor)": "x, labels"}.get(name, "x, y")
    # Without pairs by definition, which only the tests of every pairing read.
    PAIRINGS[name] = specs.PairingSpec(name, make, inputs, pairs_by_definition.all_pairs)
BOTH_DIRECTIONS = ("TwoTowers", "TwoTowers(tiles)", "SameId")  # rows of y too: no baseline a(y), and no densities of y
REGULARIZERS: dict[str, Callable[..., regularizers.AbstractRegularizer] | None] = {"none": None} | {
    spec.name: spec.make for spec in specs.REGULARIZERS
}
SHARDS = [(12,), (6, 6), (4, 4, 4), (3, 3, 3, 3), (8, 5), (8, 0), (0, 2, 7), (2, 5, 0, 4)]
DIM = 4


class Case(NamedTuple):
    bound: str
    pairing: str
    regularizer: str


class Result(NamedTuple):
    case: Case
    shards: tuple[int, ...]
    error: float  # of the gradient
    parameter_error: float  # of the worst parameter's
    loss_error: float
    equal: bool  # terms, loss, MINE's average and gradients are bitwise equal on all ranks


def cases(bound_names=BOUNDS, pairing_names=PAIRINGS, regularizer_names=REGULARIZERS) -> list[Case]:
    """Every combination that exists.

    A bound over rows needs a pairing with rows. Log-densities have no regularizer, and labels no Gaussian density.
    """
    listed = []
    for bound, pairing, regularizer in itertools.product(bound_names, pairing_names, regularizer_names):
        of_labels, has_rows = PAIRINGS[pairing].candidates_are_labels, PAIRINGS[pairing].has_rows
        if pairing in BOTH_DIRECTIONS and (BOUNDS[bound].needs_log_density or BOUNDS[bound].has_learned_baseline):
            continue
        if BOUNDS[bound].needs_log_density:
            regularizer = "none"
            if of_labels:
                continue
        if has_rows or not BOUNDS[bound].needs_rows:
            listed.append(Case(bound, pairing, regularizer))
    return list(dict.fromkeys(listed))


def module_of(case: Case, dtype: torch.dtype) -> MIEstimationModule:
    torch.manual_seed(0)
    labels = PAIRINGS[case.pairing].candidates_are_labels
    bound, with_baseline = BOUNDS[case.bound].make(), BOUNDS[case.bound].with_baseline
    if with_baseline is not None:
        bound = with_baseline(nn.Embedding(CLASSES, 1) if labels else nn.Linear(DIM, 1))
    regularizer = REGULARIZERS[case.regularizer]
    inner = critics.LabelCritic() if labels else critics.SeparableCritic(DIM, DIM, hidden=(8,), embed_dim=4)
    critic: critics.AbstractCritic = critics.CalibratedCritic(inner, scale=True, offset_unit=1.0)
    if BOUNDS[case.bound].needs_log_density:
        critic = critics.GaussianConditional(nn.Sequential(nn.Linear(DIM, 8), nn.Tanh(), nn.Linear(8, 2 * DIM)))
    module = MIEstimationModule(
        critic,
        bound,
        pairs=PAIRINGS[case.pairing].make(),
        regularizer=None if regularizer is None else regularizer(weight=0.7),
        encoder=nn.Sequential(nn.Linear(DIM, 6), nn.Tanh(), nn.Linear(6, CLASSES if labels else DIM)),
    ).to(dtype)
    with torch.no_grad():
        if isinstance(critic, critics.CalibratedCritic):
            critic.get_buffer("calibrated").fill_(True)
            critic.get_parameter("offset").fill_(0.2)
            critic.get_parameter("log_scale").fill_(0.4)
        for layer in (*module.encoders.modules(), *module.critic.modules()):
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(2)  # By default the scores of all pairs are nearly equal.
    return module


def batch_of(case: Case, rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    x, y, x_marginal, y_marginal = torch.randn(4, rows, DIM, generator=generator, dtype=torch.float64).to(dtype)
    spec, views = PAIRINGS[case.pairing], (x, 0.8 * x + 0.6 * y, x_marginal, y_marginal)
    num_views = spec.make().num_views
    return (*views[:num_views], torch.arange(rows) % CLASSES) if spec.takes_labels else views[:num_views]


class Shuffled(pairs.AbstractPairing):
    """The pairs of a pairing with ``local_pairs`` in one process, from the shuffles of all ranks."""

    num_views = 2

    def __init__(self, shuffle: torch.Tensor) -> None:
        super().__init__()
        self.shuffle = shuffle

    def forward(self, critic, *views):
        x, y = views
        return Scores.from_samples(
            critic.paired(x, y), critic.paired(x, y[self.shuffle]), y=y, marginal_columns=self.shuffle
        )


def gradient(module: MIEstimationModule, loss: torch.Tensor) -> torch.Tensor:
    """The gradient of all parameters in one vector."""
    module.zero_grad()
    loss.backward()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in module.parameters()])


def readings(module: MIEstimationModule, output) -> torch.Tensor:
    """The terms, the loss, and the state that a step changes."""
    averages = [module.bound.log_average] if isinstance(module.bound, bounds.MINE) else []
    return torch.stack([*output.terms, output.loss, *averages]).detach()


def compare(case: Case, shards: tuple[int, ...], rank: int, dtype: torch.dtype) -> Result:
    module = module_of(case, dtype)
    single = copy.deepcopy(module)
    batch = batch_of(case, sum(shards), dtype)
    start = sum(shards[:rank])
    output = module.step(tuple(part[start : start + shards[rank]] for part in batch))
    averaged = all_reduce_mean_(gradient(module, output.loss))
    single.pairs.gather = False
    if case.pairing.endswith(("(tiles)", "(ring)")):
        assert isinstance(single.pairs, pairs.AllPairs | pairs.TwoViews | pairs.TwoTowers)
        single.pairs.tile_bytes = math.inf
    if PAIRINGS[case.pairing].local_pairs:
        shuffles: list = [None] * len(shards)
        columns = output.scores._layout.marginals._columns  # type: ignore[attr-defined]  # of a list of pairs
        dist.all_gather_object(shuffles, columns + start)
        single.pairs = Shuffled(torch.cat(shuffles))
    expected = single.step(batch)
    reference = gradient(single, expected.loss)
    sizes, rounding = [p.numel() for p in module.parameters()], 1e4 * torch.finfo(dtype).eps
    each = [(a - b, b) for a, b in zip(averaged.split(sizes), reference.split(sizes), strict=True)]
    parameter_error = max(float(d.norm() / g.norm()) for d, g in each if g.norm() > rounding * reference.norm())
    read, truth = readings(module, output), readings(single, expected)
    loss_error = ((read - truth).abs() / truth.abs().clamp(min=1)).max()
    all_ranks = gather(torch.cat([read, averaged]))
    equal = bool((all_ranks == all_ranks[0]).all())
    error = float((averaged - reference).norm() / reference.norm())
    return Result(case, shards, error, parameter_error, float(loss_error), equal)


def _work(rank: int, shards: tuple[int, ...], chosen: list[Case], dtype: torch.dtype, folder: str) -> None:
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=60)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(shards), timeout=timeout
    )
    results = [compare(case, shards, rank, dtype) for case in chosen]
    if rank == 0:
        torch.save([(tuple(case), *rest) for case, *rest in results], f"{folder}/results.pt")
    dist.barrier()
    dist.destroy_process_group()


def run(chosen: Sequence[Case], shards: tuple[int, ...], dtype: torch.dtype) -> list[Result]:
    """Results with one rank for each shard."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_work, (shards, list(chosen), dtype, folder), nprocs=len(shards), start_method="fork")
        results = torch.load(os.path.join(folder, "results.pt"), weights_only=True)
    return [Result(Case(*case), *rest) for case, *rest in results]


def tables(results: Sequence[Result], other: Sequence[Result]) -> str:
    """Errors by bound and pairing in float64, and by the shards of the ranks in both precisions."""

    def worst(chosen, name="error"):
        errors = [getattr(result, name) for result in chosen]
        return f"{max(errors):.0e}" if errors else "-"

    by_bound = [
        [bound, *(worst([r for r in results if r.case[:2] == (bound, pairing)]) for pairing in PAIRINGS)]
        for bound in dict.fromkeys(r.case.bound for r in results)
    ]
    by_shards = []
    for shards in dict.fromkeys(r.shards for r in results):
        double, single = ([r for r in some if r.shards == shards] for some in (results, other))
        cells = [" + ".join(map(str, shards)), len(double), worst(double), worst(double, "parameter_error")]
        cells.append(worst(double, "loss_error"))
        equal = sum(r.equal for r in (*double, *single))
        by_shards.append([*map(str, cells), worst(single), f"{equal} of {len(double) + len(single)}"])
    head = ["rows of each rank", "cases", "gradient", "worst parameter", "terms and loss", "gradient, float32"]
    head.append("same bits on all ranks")
    return markdown_table(["bound", *PAIRINGS], by_bound) + "\n\n" + markdown_table(head, by_shards)
