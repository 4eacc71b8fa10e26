"""Tables and figures of the supervised and contrastive benchmarks, with Table 1 of the paper."""

import csv
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mi.bench.cells import Grid
from lightning_mi.bench.grid import Cell
from lightning_mi.bench.reports.tables import markdown_table, write_csv, write_text
from lightning_mi.bench.results import load_curves

ACCURACY = {"supervised": "test/accuracy", "contrastive": "probe/nearest_neighbor"}
_VALIDATION = {"supervised": "val/accuracy", "contrastive": "probe/nearest_neighbor"}
_ACCURACY_WORDS = {
    "supervised": "the critic's argmax over labels on the test set, in evaluation mode",
    "contrastive": "the nearest neighbor by inner product among the training features, for the test set",
}
_COLLAPSED = 2.0  # times chance: a lower accuracy counts as collapsed
_READINGS = {"test_mi": "test/mi", "test_mi_macro": "test/mi_macro", "test_mi_plug_in": "test/mi_plug_in"}
_PUBLISHED_SET = {10: "CIFAR-10", 100: "CIFAR-100"}

Group = tuple[str, str, str, float]  # study, loss, variant and weight
Groups = dict[Group, list[dict[str, Any]]]


def run_statistics(cell: Cell, curves: dict[str, Any], kind: str) -> dict[str, Any]:
    """Summary of one training, in nats.

    Args:
        cell: The training.
        curves: Its curves.
        kind: ``supervised`` or ``contrastive``.

    Returns:
        ``mi`` and ``across_batches``, the mean and standard deviation of the bound (without the penalty) over the
        training batches of the last epoch; the micro, macro and plug-in estimates on the test set (NaN if the loss has
        none); ``accuracy``, and ``val_accuracy`` on the validation set (NaN without one); ``linear_probe`` (NaN if not
        measured); ``diverged_at``; and ``collapsed`` (the loss is not finite, or the accuracy is below twice chance).
    """
    tested = curves["tested"]
    is_finite = curves["diverged_at"] is None
    last = curves["value"][-curves["steps_an_epoch"] :].astype(np.float64)
    last = last[np.isfinite(last)]  # a batch without a joint pair has no estimate
    truth = float(curves["true_mi"][0])
    accuracy = tested.get(ACCURACY[kind], math.nan)
    return {
        "study": cell.study,
        "loss": cell.loss,
        "variant": cell.variant,
        "weight": _weight(cell),
        "seed": cell.seed,
        "mi": float(last.mean()) if is_finite and len(last) else math.nan,
        "across_batches": float(last.std()) if is_finite and len(last) else math.nan,
        **{name: tested.get(key, math.nan) if is_finite else math.nan for name, key in _READINGS.items()},
        "accuracy": accuracy,
        "val_accuracy": curves.get("validated", {}).get(_VALIDATION[kind], math.nan),
        "linear_probe": tested.get("probe/accuracy", math.nan),
        "true_mi": truth,
        "diverged_at": curves["diverged_at"],
        "collapsed": bool(not is_finite or not accuracy > _COLLAPSED / curves["num_classes"]),
    }


def report(grid: Grid[Cell], folder: Path, figures: str = "png") -> list[Path]:
    """Write ``results.csv``, ``table.md`` and the figures; return their paths."""
    from lightning_mi.bench.reports.image_figures import accuracy_figure, estimate_figure, map_figure

    runs = [(cell, curves) for cell in grid.cells if (curves := load_curves(folder, cell)) is not None]
    rows = [run_statistics(cell, curves, grid.report) for cell, curves in runs]
    paths = [folder / "results.csv", folder / "table.md"]
    write_csv(paths[0], rows)
    write_text(paths[1], _markdown(grid, runs, rows))
    for study in dict.fromkeys(cell.study for cell, _ in runs):
        study_runs = [(cell, curves) for cell, curves in runs if cell.study == study]
        for name, draw in (("mi", estimate_figure), ("map", map_figure)):
            paths.append(folder / f"{study}-{name}.{figures}")
            draw(study_runs, paths[-1])
        paths.append(folder / f"{study}-accuracy.{figures}")
        accuracy_figure([row for row in rows if row["study"] == study], paths[-1])
    return paths


def _markdown(grid: Grid[Cell], runs: list[tuple[Cell, dict[str, Any]]], rows: list[dict[str, Any]]) -> str:
    truth = rows[0]["true_mi"]
    published_set = _PUBLISHED_SET.get(runs[0][1].get("num_classes", 0), "")
    published = _published(grid.report, published_set)
    papers = {cell.loss: cell.paper for cell, _ in runs}
    groups: Groups = {}
    for row in rows:
        groups.setdefault((row["study"], row["loss"], row["variant"], row["weight"]), []).append(row)
    chosen = _chosen_weights(groups)
    table = []
    for (study, loss, variant, weight), group in groups.items():
        others = [
            g
            for key, g in groups.items()
            if key[:2] == (study, loss) and (key[2] == "original") != (variant == "original")
        ]
        cells = [_spread(group, "mi", bold=False), _mean(group, "across_batches")]
        cells += [_spread(group, name, bold=False) for name in _READINGS]
        cells.append(_spread(group, "val_accuracy", bold=False))
        cells += [_spread(group, "accuracy", bold=_separate(group, others)), _spread(group, "linear_probe", bold=False)]
        cells.append(f"{sum(row['collapsed'] for row in group)} of {len(group)}")
        mi, accuracy = published.get((papers[loss] or "", variant), ("-", "-"))
        mark = " (chosen)" if (study, loss, variant, weight) in chosen else ""
        table.append([study, loss, variant, f"{weight:g}{mark}" if weight else "-", *cells, mi, accuracy])
    heading = ["study", "loss", "variant", "weight", "MI", "across batches", "test MI, micro", "macro", "plug-in"]
    heading += [
        "validation accuracy",
        "accuracy",
        "linear probe",
        "collapsed",
        f"{published_set} published: MI",
        "accuracy",
    ]
    seeds = sorted({row["seed"] for row in rows})
    diverged = [
        f"{cell.name} at step {curves['diverged_at']}" for cell, curves in runs if curves["diverged_at"] is not None
    ]
    return "\n".join(
        [
            f"# {grid.report.capitalize()} benchmark on {grid.data}, preset {grid.preset}",
            "",
            f"Truth: {'unknown' if math.isnan(truth) else f'{truth:.4f} nats, of the training labels'}. "
            f"{'Seed' if len(seeds) == 1 else 'Mean ± standard deviation over seeds'} {', '.join(map(str, seeds))}. "
            "`MI` is the bound without the penalty, the mean over the training batches "
            "of the last epoch; `across batches` its standard deviation over them. `test MI` is estimated once, on the "
            "test set: micro pools all pairs, macro averages batches, plug-in sets the log-normalizer to its target.",
            f"`accuracy`: {_ACCURACY_WORDS[grid.report]}; bold if it is higher and the intervals of one standard "
            "deviation of original and regularized do not overlap. `collapsed`: a non-finite loss, or an accuracy "
            "below twice chance.",
            *(
                ["`validation accuracy`: the same on the validation set; the weight with the highest is `chosen`."]
                if chosen
                else []
            ),
            f"Differences from the paper: {grid.note}." if grid.note else "Settings: the paper's.",
            "The published cells are from Table 1 of the paper (ResNet-18 on CIFAR); the meaning of its ± is unknown.",
            f"Not finite: {'; '.join(diverged) or 'none'}.",
            "",
            markdown_table(heading, table),
        ]
    )


def _chosen_weights(groups: Groups) -> set[Group]:
    """Of groups that differ in the weight alone, the one with the highest mean accuracy on the validation set."""
    swept: dict[tuple[str, str, str], dict[Group, float]] = {}
    for group, rows in groups.items():
        if accuracies := _finite(rows, "val_accuracy"):
            swept.setdefault(group[:3], {})[group] = float(np.mean(accuracies))
    return {max(means, key=means.__getitem__) for means in swept.values() if len(means) > 1}


def _weight(cell: Cell) -> float:
    regularizer = cell.config["model"]["init_args"]["regularizer"]
    return 0.0 if regularizer is None else float(regularizer["init_args"]["weight"])


def _finite(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if math.isfinite(row[name])]


def _spread(rows: list[dict[str, Any]], name: str, *, bold: bool) -> str:
    values = _finite(rows, name)
    if not values:
        return "-"
    text = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else f"{values[0]:.3f}"
    return f"**{text}**" if bold else text


def _mean(rows: list[dict[str, Any]], name: str) -> str:
    values = _finite(rows, name)
    return f"{np.mean(values):.3f}" if values else "-"


def _separate(group: list[dict[str, Any]], others: list[list[dict[str, Any]]]) -> bool:
    """Whether the interval of one standard deviation of the accuracy lies above that of every other group."""
    interval = _interval(group)
    intervals = [_interval(other) for other in others]
    return interval is not None and bool(intervals) and all(i is None or interval[0] > i[1] for i in intervals)


def _interval(rows: list[dict[str, Any]]) -> tuple[float, float] | None:
    values = _finite(rows, "accuracy")
    if len(values) < 2:
        return None
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    return mean - deviation, mean + deviation


def _published(kind: str, data: str) -> dict[tuple[str, str], tuple[str, str]]:
    """MI and accuracy in Table 1 of the paper, by the paper's name of the loss and by variant."""
    cells = {}
    with files("lightning_mi.bench").joinpath("published/table1.csv").open() as file:
        for row in csv.DictReader(file):
            if (row["benchmark"], row["dataset"]) == (kind, data):
                for variant in ("original", "regularized"):
                    mi, accuracy = (f"{row[f'{x}_{variant}']} ± {row[f'{x}_{variant}_pm']}" for x in ("mi", "acc"))
                    cells[row["loss"], variant] = mi, accuracy
    return cells
