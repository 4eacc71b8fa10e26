"""TensorBoard charts of a training: custom-scalars layouts.

TensorBoard shows the last layout that a run wrote, and merges the layouts of several runs chart by chart. A larger
layout therefore repeats the charts of a smaller one exactly: runs with either share the same charts.
"""

import re
from collections.abc import Collection, Iterable

from lightning.pytorch.loggers import TensorBoardLogger

_LOADER = r"(/dataloader_idx_\d+)?"  # Lightning's suffix where a stage has several data loaders
_VALUE = "(?<!_standard_error)(?<!_train_gap)(?<!_limit)"  # the end of a name that has such companions
Charts = dict[str, dict[str, tuple[str, list[str]]]]


def _curves(*names: str) -> tuple[str, list[str]]:
    return "Multiline", [f"^{name}{_LOADER if name.startswith(('val/', 'probe/')) else ''}$" for name in names]


CHARTS: Charts = {
    "mutual information (nats)": {
        "training": _curves("train/mi", "train/true_mi", "train/log_n"),
        "held out": _curves("val/mi", "val/mi_plug_in", "val/true_mi", "val/log_n"),
    },
    "terms (nats)": {
        "joint and marginal term": _curves("train/joint_term", "train/marginal_term"),
        "log-normalizer, its target and band": _curves("train/log_normalizer", "log_normalizer/(target|low|high)"),
    },
}

ALL_CHARTS: Charts = CHARTS | {
    "stability": {
        "drift of the terms (nats per 1000 steps)": _curves("stability/drift_rate"),
        "log-normalizer (nats)": _curves("stability/log_normalizer"),
        "effective sample fraction of the marginal term": _curves("stability/effective_sample_fraction"),
        "range of the scores (nats)": _curves("stability/score_range"),
        "weight of the regularizer": _curves("regularizer/weight"),
    },
    "probes": {
        "accuracy": _curves("probe/nearest_neighbor", "probe/accuracy", "probe/online_accuracy"),
    },
    "watched layers (nats)": {
        "I(layer; label), held out": _curves("plane/[^/]+/label", "plane/[^/]+/label_limit"),
        "I(layer + noise; input or layer), held out": _curves(f"plane/[^/]+/(?!label)[^/]+{_VALUE}"),
        "monitored pairs, held out": _curves(f"mi_monitor/[^/]+/[^/]+{_VALUE}"),
    },
}


def select_charts(names: Collection[str]) -> Charts:
    """The charts that have a curve.

    Args:
        names: Log names so far.

    Example:
        >>> select_charts({"train/mi", "train/loss"})
        {'mutual information (nats)': {'training': ('Multiline', ['^train/mi$', '^train/true_mi$', '^train/log_n$'])}}
    """
    drawn = {
        category: {
            title: chart for title, chart in charts.items() if any(re.search(p, n) for p in chart[1] for n in names)
        }
        for category, charts in ALL_CHARTS.items()
    }
    return {category: charts for category, charts in drawn.items() if charts}


def add_charts(loggers: Iterable[object], charts: Charts = CHARTS) -> None:
    """Write a custom-scalars layout to each TensorBoard logger; TensorBoard shows the last one that a run wrote."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_custom_scalars(charts)
