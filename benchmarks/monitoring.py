"""StabilityMonitor on trainings of the one-hot toy, seed by seed: the tables of docs/monitoring.md.

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
from lightning_mi.callbacks.stability.criteria import detect_drift
from lightning_mi.callbacks.stability.window import Block

LAST = 500  # steps in the reported averages
BAND = (-0.3, 0.3)  # of the log-normalizer, nats, for AdaptiveRegularizer
# Study, loss, variant, and the expected detection.
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
    """Records value, plug-in estimate, log-normalizer and weight of every step."""

    def __init__(self):
        self.values, self.plug_ins, self.log_normalizers, self.weights = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        terms = outputs["terms"]
        self.values.append(terms.value)
        self.plug_ins.append(pl_module.bound.plug_in(terms.joint_term, pl_module.target))
        self.log_normalizers.append(terms.log_normalizer)
        self.weights.append(0.0 if pl_module.regularizer is None else pl_module.regularizer.current_weight())

    def average(self, name):
        return torch.stack(getattr(self, name)[-LAST:]).mean().item()

    @property
    def not_finite_at(self):
        """The first step whose value is not finite, or None."""
        bad = (~torch.stack(self.values).isfinite()).nonzero()
        return int(bad[0]) + 1 if len(bad) else None


def train(cell, callback, steps=None):
    """Train a cell of the grid with a callback; return it, the terms, and the stability warnings."""
    cell.config["trainer"]["callbacks"] = []  # no figures
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


def detections(cell, steps):
    """The steps of the first drift, explosion and non-finite value, and a description."""
    monitor, terms, _ = train(cell, StabilityMonitor(), steps)
    at = {"drift": monitor.drifting_at, "explosion": monitor.exploded_at, "(not finite": terms.not_finite_at}
    words = [f"{kind} {step}" + ")" * kind.startswith("(") for kind, step in at.items() if step is not None]
    print(f"# {cell.name}: {', '.join(words) or 'nothing'}", flush=True)
    return at, ", ".join(words) or "nothing"


def verdict_table(seeds, steps=None, rows=VERDICTS):
    """Markdown: detections of each training on the toy, and how many are as expected."""
    table, right = [], 0
    for (_, loss, variant, expected), of_seeds in cells(seeds, rows):
        line = []
        for cell in of_seeds:
            at, words = detections(cell, steps)
            line.append(words)
            in_time = at.get(expected) is not None and at[expected] < (at["(not finite"] or math.inf)
            right += words == "nothing" if expected == "nothing" else in_time
        table.append([str(of_seeds[0].config["data"]["init_args"]["batch_size"]), loss, variant, expected, *line])
    heading = ["batch", "loss", "variant", "expected", *(f"seed {seed}" for seed in seeds)]
    return f"{markdown_table(heading, table)}\n\nAs expected: {right} of {len(rows) * len(seeds)}."


def roll_back_table(seeds, steps=None, rows=ROLL_BACKS):
    """Markdown: rollbacks of each training, and its final estimates."""
    table, messages = [], []
    for _, of_seeds in cells(seeds, rows):
        for cell in of_seeds:
            monitor, terms, messages = train(cell, StabilityMonitor(action="roll_back"), steps)
            where = ", ".join(f"{at} to {to}" for at, to in monitor.rolled_back) or "never"
            value, plug_in = terms.average("values"), terms.average("plug_ins")
            batch = str(cell.config["data"]["init_args"]["batch_size"])
            table.append(
                [batch, cell.loss, str(cell.seed), where, str(len(terms.values)), f"{value:.2f}", f"{plug_in:.2f}"]
            )
            print(f"# {cell.name}: {table[-1]}", *messages, sep="\n#   ", flush=True)
    heading = ["batch", "loss", "seed", "rolled back at, to", "steps", "value", "plug-in"]
    return (
        f"{markdown_table(heading, table)}\n\nTruth: {math.log(16):.2f} nats. Warnings of the last training:\n\n"
        + "\n".join(f"> {message}" for message in messages)
    )


def adaptive_table(seeds, steps=None, weights=(0.001, 10.0), batches=(100, 32)):
    """Markdown: DV with AdaptiveRegularizer, from a weight that is too low or too high."""
    table = []
    for batch in batches:
        for weight in weights:
            for seed in seeds:
                [(_, [cell])] = cells([seed], [("explosion", "DV", "regularized")])
                cell.config["data"]["init_args"]["batch_size"] = batch
                cell.config["model"]["init_args"]["regularizer"]["init_args"]["weight"] = weight
                _, terms, _ = train(cell, AdaptiveRegularizer(band=BAND), steps)
                course = [f"{terms.weights[i]:.3g}" for i in (len(terms.weights) // 3 - 1, -1)]
                averages = [f"{terms.average(name):.2f}" for name in ("log_normalizers", "values", "plug_ins")]
                table.append([str(batch), f"{weight:g}", str(seed), *course, *averages])
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
    """Markdown: false-alarm rates on stationary series, of one test and of all tests in a run.

    Joint term and log-normalizer are equal: the worst case, since both tests then reject together.
    """
    table, size = [], window // every
    for deviation, memory in ((0.5, 0), (0.5, 20), (0.5, 100), (0.05, 100)):
        rng, one, any_look = np.random.default_rng(0), 0, 0
        for _ in range(runs):
            means = deviation * stationary(rng, memory, steps).reshape(-1, every).mean(axis=1)
            blocks = [Block(every * (i + 1), 0.0, mean, mean, 0, 1, 1, 9, 1, math.inf) for i, mean in enumerate(means)]
            alarms = [
                detect_drift(blocks[max(i - size, 0) : i], size, min_rate=0.05, alpha=0.001, target=None).detected
                for i in range(size // 2, len(blocks) + 1)
            ]
            one, any_look = one + alarms[size // 2], any_look + any(alarms)
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
