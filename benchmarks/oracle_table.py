"""What every bound reads with the exact critic, as a Markdown table: the bias of the bound alone, no training in it.

    python benchmarks/oracle_table.py
    python benchmarks/oracle_table.py --mi 2 6 10 --batch-size 256 --batches 100

The critic is the log density ratio of the Gaussian law, plus the constant at which the bound has its optimum. What
differs from the mutual information is then the estimate's own bias and spread. Bounds that read the same share a row.
"""

import argparse
import math
from collections.abc import Sequence

import torch

from lightning_mi import Scores, bounds
from lightning_mi.bench.reports.tables import markdown_table
from lightning_mi.data import GaussianDataModule
from lightning_mi.metrics import MutualInformation, StandardError

# Each bound, and what is added to the log density ratio to make its optimal critic.
BOUNDS = {
    "DV": (bounds.DV(), 0.0),
    "MINE": (bounds.MINE(), 0.0),
    "SMILE(5)": (bounds.SMILE(tau=5.0), 0.0),
    "InfoNCE": (bounds.InfoNCE(), 0.0),
    "NWJ": (bounds.NWJ(), 1.0),
    "TUBA(1)": (bounds.TUBA(), 0.0),
    "JS": (bounds.JS(), 0.0),
    "NCE": (bounds.NCE(), 0.0),
    "Hellinger": (bounds.Hellinger(), 0.0),
    "RPC": (bounds.RPC(), 0.0),
    "DCL": (bounds.DCL(), 0.0),
}
READINGS = {"macro": "macro ± sd", "micro": "micro ± se", "plug-in": "plug-in ± sd"}
# What is no estimate, but a lower limit or an objective, of the log density ratio.
OTHERS = {
    ("JS", "Jensen-Shannon limit ± sd"): lambda s: bounds.jensen_shannon_limit(bounds.gan_objective(s)).value,
    ("DCL", "objective ± sd"): lambda s: bounds.DCL()(s).objective,
    ("Hellinger", "objective ± sd"): lambda s: bounds.Hellinger()(s).objective,
    ("RPC", "objective ± sd"): lambda s: bounds.RPC()(s).objective,
}


@torch.no_grad()
def read(bound, shift, matrices):
    """Each reading of one bound: the value, with the spread over batches or, for micro, its standard error."""
    metrics = {average: (MutualInformation(bound, average), StandardError(bound, average)) for average in READINGS}
    for matrix in matrices:
        scores = Scores.from_matrix(matrix + shift)
        terms = bound(scores)
        for pair in metrics.values():
            for metric in pair:
                metric.update(terms, scores)
    cells = {}
    for average, pair in metrics.items():
        value, error = (float(metric.compute()) for metric in pair)
        spread = error if average == "micro" else error * math.sqrt(len(matrices))
        cells[average] = f"{value:.2f} ± {spread:.2f}"
    if bound.capped_at_log_n:
        cells["plug-in"] = "-"  # at this critic the rows' log-normalizer is not at the target
    return cells


def rows(levels, batches, batch_size, dim, seed):
    """The table's rows: a bound, a reading, and a cell for each level."""
    columns = []
    others = []
    for mi in levels:
        data = GaussianDataModule(dim=dim, mi=mi, steps_per_mi=batches, batch_size=batch_size, seed=seed)
        matrices = [data.log_ratio_matrix(x.double(), y.double()) for x, y in data.train_dataloader()]
        columns.append({name: read(bound, shift, matrices) for name, (bound, shift) in BOUNDS.items()})
        scores = [Scores.from_matrix(matrix) for matrix in matrices]
        others.append({key: torch.stack([value(batch) for batch in scores]) for key, value in OTHERS.items()})
    names: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for name in BOUNDS:
        cells = tuple(tuple(column[name][average] for column in columns) for average in READINGS)
        names.setdefault(cells, []).append(name)
    return [
        [", ".join(same), label, *line]
        for cells, same in names.items()
        for label, line in zip(READINGS.values(), cells, strict=True)
    ] + [[*key, *(f"{level[key].mean():.2f} ± {level[key].std():.2f}" for level in others)] for key in OTHERS]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mi", type=float, nargs="+", default=[2.0, 4.0, 6.0, 8.0, 10.0], help="nats")
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--dim", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    table = rows(options.mi, options.batches, options.batch_size, options.dim, options.seed)
    print(markdown_table(["bound", "reading", *(f"MI = {mi:g}" for mi in options.mi)], table))


if __name__ == "__main__":
    main()
