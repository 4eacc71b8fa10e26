"""Messages of the training commands: the final estimates, and filters for irrelevant warnings."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from lightning_mi._compat.lightning_loops import silence_cloud_advertisement
from lightning_mi.training.epoch_metrics import estimate_name, standard_error_name


def format_estimates(metrics: Mapping[str, Any]) -> list[str]:
    """One line for each data loader: the estimate on validation data, its standard error and, if known, the true MI.

    Example:
        >>> format_estimates({"val/mi": 1.9, "val/mi_standard_error": 0.02, "val/true_mi": 2.0})
        ['val/mi 1.90 +- 0.02 nats (truth: 2.00)']
    """
    lines = []
    for name, estimate in metrics.items():
        if estimate_name(name) != "val/mi":
            continue
        error, truth = metrics.get(standard_error_name(name)), metrics.get(name.replace("val/mi", "val/true_mi", 1))
        lines.append(
            f"{name} {float(estimate):.2f}"
            + ("" if error is None or math.isnan(error) else f" +- {float(error):.2f}")
            + " nats"
            + ("" if truth is None else f" (truth: {float(truth):.2f})")
        )
    return lines


def silence_notices() -> None:
    """Filter out Lightning's advertisement, and a warning that Lightning itself causes in torch."""
    silence_cloud_advertisement()
    # Lightning 2.6 counts parameters with a class that torch 2.14 deprecates; a user cannot change it.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)


def silence_batch_indices() -> None:
    """Filter out the warning about unknown batch indices of a loader: the default prediction writer works without."""
    warnings.filterwarnings("ignore", message="Couldn't infer the batch indices", category=UserWarning)


def silence_training_state() -> None:
    """Filter out the warnings about training state that an evaluation does not restore."""
    warnings.filterwarnings("ignore", message="The dirpath has changed from", category=UserWarning)
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`", category=UserWarning)
