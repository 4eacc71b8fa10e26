"""What StabilityMonitor says of trainings on the one-hot toy, seed by seed: the tables of docs/monitoring.md.

python benchmarks/monitoring.py                      all four tables, seeds 0 to 4: fifteen minutes on one core
python benchmarks/monitoring.py --only roll-back     one of them
"""

import argparse
import math
import tempfile
import warnings
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import torch

from benchmarks.common import quiet
from lightning_mi.bench.grid import load_grid
from lightning_mi.bench.reports.tables import markdown_table
from lightning_mi.bench.train import instantiate
from lightning_mi.callbacks import AdaptiveRegularizer, StabilityMonitor
from lightning_mi.callbacks.stability.criteria import read_drift
from lightning_mi.callbacks.stability.window import Block

LAST = 500  # steps that a reading averages over
BAND = (-0.3, 0.3)  # of the log-normalizer, nats, for AdaptiveRegularizer
# Study, loss, variant, and what the monitor has to say of it.
VERDICTS = [
    ("drifting", "DV", "original", "drift"),
    ("drifting", "MINE", "original", "drift"),
    ("drifting", "DV", "regularized", "nothing"),
    ("drifting", "MINE", "regularized", "nothing"),
    ("drifting", "InfoNCE", "original", "nothing"),
    ("drifting", "NWJ", "regularized", "nothing"),
    ("explosion", "DV", "original", "explosion"),
    ("explosion", "MINE", "original", "explosion"),
    ("explosion", "NWJ", "original", "explosion"),
    ("explosion", "DV", "regularized", "nothing"),
    ("explosion", "MINE", "regularized", "nothing"),
    ("explosion", "InfoNCE", "original", "nothing"),
    ("explosion", "NWJ", "regularized", "nothing"),
]
ROLL_BACKS = [row[:3] for row in VERDICTS if row[3] == "explosion"]


class Terms(L.Callback):
    """Keeps the value and the plug-in reading of every step, and the first step with a value that is not finite."""

    def __init__(self):
        self.values, self.plug_ins, self.log_normalizers, self.weights = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        terms = outputs["terms"]
        self.values.append(terms.value)
        self.plug_ins.append(pl_module.bound.plug_in(terms.joint_term, pl_module.target))
        self.log_normalizers.append(terms.log_normalizer)
        self.weights.append(0.0 if pl_module.regularizer is None else pl_module.regularizer.current_weight())

    def reading(self, name):
        return torch.stack(getattr(self, name)[-LAST:]).mean().item()

    @property
    def not_finite_at(self):
        bad = (~torch.stack(self.values).isfinite()).nonzero()
        return int(bad[0]) + 1 if len(bad) else None


def train(cell, callback, steps=None):
    """Train a cell of the grid with a callback; return it, the terms, and what was said."""
    cell.config["trainer"]["callbacks"] = []  # what draws is not asked here
    if steps is not None:
        cell.config["data"]["init_args"]["steps"] = steps
    terms = Terms()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cli = instantiate(cell.config, Path(folder), cell.name)
        cli.trainer.callbacks += [callback, terms]
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return callback, terms, [str(w.message) for w in caught if w.category.__name__ == "StabilityWarning"]


def cells(seeds, rows):
    found = {(c.study, c.loss, c.variant, c.seed): c for c in load_grid("onehot", "paper", seeds=seeds).cells}
    return [(row, [found[*row[:3], seed] for seed in seeds]) for row in rows]


def told(cell, steps):
    """The steps at which drift and explosion were told, and the first with an infinite value."""
    monitor, terms, _ = train(cell, StabilityMonitor(), steps)
    at = {"drift": monitor.drifting_at, "explosion": monitor.exploded_at, "(not finite": terms.not_finite_at}
    words = [f"{kind} {step}" + ")" * kind.startswith("(") for kind, step in at.items() if step is not None]
    print(f"# {cell.name}: {', '.join(words) or 'nothing'}", flush=True)
    return at, ", ".join(words) or "nothing"


def verdict_table(seeds, steps=None, rows=VERDICTS):
    """Markdown: of each training on the toy, what was told when, and whether it is what should be."""
    table, right = [], 0
    for (_, loss, variant, expected), of_seeds in cells(seeds, rows):
        line = []
        for cell in of_seeds:
            at, words = told(cell, steps)
            line.append(words)
            in_time = at.get(expected) is not None and at[expected] < (at["(not finite"] or math.inf)
            right += words == "nothing" if expected == "nothing" else in_time
        table.append([str(of_seeds[0].config["data"]["init_args"]["batch_size"]), loss, variant, expected, *line])
    heading = ["batch", "loss", "variant", "expected", *(f"seed {seed}" for seed in seeds)]
    return f"{markdown_table(heading, table)}\n\nAs expected: {right} of {len(rows) * len(seeds)}."


def roll_back_table(seeds, steps=None, rows=ROLL_BACKS):
    """Markdown: of each training, how often and where it was rolled back, and what it reads at the end."""
    table, said = [], []
    for _, of_seeds in cells(seeds, rows):
        for cell in of_seeds:
            monitor, terms, said = train(cell, StabilityMonitor(action="roll_back"), steps)
            where = ", ".join(f"{at} to {to}" for at, to in monitor.rolled_back) or "never"
            value, plug_in = terms.reading("values"), terms.reading("plug_ins")
            batch = str(cell.config["data"]["init_args"]["batch_size"])
            table.append(
                [batch, cell.loss, str(cell.seed), where, str(len(terms.values)), f"{value:.2f}", f"{plug_in:.2f}"]
            )
            print(f"# {cell.name}: {table[-1]}", *said, sep="\n#   ", flush=True)
    heading = ["batch", "loss", "seed", "rolled back at, to", "steps", "value", "plug-in"]
    return (
        f"{markdown_table(heading, table)}\n\nTruth: {math.log(16):.2f} nats. What the last one said:\n\n"
        + "\n".join(f"> {words}" for words in said)
    )


def adaptive_table(seeds, steps=None, weights=(0.001, 10.0), batches=(100, 32)):
    """Markdown: DV with a weight that begins too low or too high, and follows the log-normalizer."""
    table = []
    for batch in batches:
        for weight in weights:
            for seed in seeds:
                [(_, [cell])] = cells([seed], [("explosion", "DV", "regularized")])
                cell.config["data"]["init_args"]["batch_size"] = batch
                cell.config["model"]["init_args"]["regularizer"]["init_args"]["weight"] = weight
                _, terms, _ = train(cell, AdaptiveRegularizer(band=BAND), steps)
                course = [f"{terms.weights[i]:.3g}" for i in (len(terms.weights) // 3 - 1, -1)]
                readings = [f"{terms.reading(name):.2f}" for name in ("log_normalizers", "values", "plug_ins")]
                table.append([str(batch), f"{weight:g}", str(seed), *course, *readings])
                print(f"# {table[-1]}", flush=True)
    heading = [
        "batch",
        "first weight",
        "seed",
        "weight after a third",
        "at the end",
        "log-normalizer",
        "value",
        "plug-in",
    ]
    return markdown_table(heading, table)


def stationary(rng, memory, count):
    """A series of standard deviation 1 whose autocorrelation falls by e in ``memory`` steps."""
    decay = math.exp(-1 / memory) if memory else 0.0
    series = rng.standard_normal(count) * math.sqrt(1 - decay**2)
    series[0] = rng.standard_normal()
    for i in range(1, count):
        series[i] += decay * series[i - 1]
    return series


def false_alarm_table(runs=200, steps=3000, every=50, window=2000):
    """Markdown: how many of many runs in which nothing drifts are said to drift, by one look and by all of them.

    Terms that move as one are the worst case: then the two tests are one.
    """
    table, size = [], window // every
    for deviation, memory in ((0.5, 0), (0.5, 20), (0.5, 100), (0.05, 100)):
        rng, one, any_look = np.random.default_rng(0), 0, 0
        for _ in range(runs):
            means = deviation * stationary(rng, memory, steps).reshape(-1, every).mean(axis=1)
            blocks = [Block(every * (i + 1), 0.0, mean, mean, 0, 1, 1, 9, 1, math.inf) for i, mean in enumerate(means)]
            told = [
                read_drift(blocks[max(i - size, 0) : i], size, min_rate=0.05, alpha=0.001, target=None).together
                for i in range(size // 2, len(blocks) + 1)
            ]
            one, any_look = one + told[size // 2], any_look + any(told)
        table.append([f"{deviation:g}", str(memory), f"{one / runs:.1%}", f"{any_look / runs:.1%}"])
    heading = ["standard deviation of a step (nats)", "memory (steps)", "one look", f"any look in {steps} steps"]
    return markdown_table(heading, table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, help="of each training, instead of 3000")
    parser.add_argument("--only", choices=["verdicts", "roll-back", "adaptive", "false-alarms"])
    options = parser.parse_args()
    quiet()
    tables = {
        "verdicts": lambda: verdict_table(options.seeds, options.steps),
        "roll-back": lambda: roll_back_table(options.seeds, options.steps),
        "adaptive": lambda: adaptive_table(options.seeds, options.steps),
        "false-alarms": false_alarm_table,
    }
    for name, table in tables.items():
        if options.only in (None, name):
            print(f"\n{table()}\n", flush=True)


if __name__ == "__main__":
    main()
