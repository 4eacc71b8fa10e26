"""The metrics of a stage: of the estimate in training, validation and test, and of predictions in the latter two."""

from typing import final

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.metrics import EffectiveSampleSize, LogNormalizer, MutualInformation, StandardError
from lightning_mi.metrics.buffered import BufferedMetrics
from lightning_mi.metrics.reading import Average
from lightning_mi.pairs import AbstractPairing
from lightning_mi.probes import OnlineLinearProbe
from lightning_mi.step_output import StepOutput


def standard_error_name(monitor: str) -> str:
    """The name under which the standard error of a logged estimate is logged.

    Example:
        >>> standard_error_name("val/mi")
        'val/mi_standard_error'
    """
    return f"{monitor}_standard_error"


def training_metrics(bound: AbstractBound, target: float, held: bool) -> BufferedMetrics:
    """The metrics of an epoch of training; the names that they do not share with a single step's logs are theirs.

    Args:
        bound: What is read.
        target: Where the log-normalizer is held; nats.
        held: Whether something holds it there: the plug-in estimate rests on that.
    """
    metrics: dict[str, Metric] = {
        "log_normalizer_micro": LogNormalizer(bound),
        "effective_sample_size": EffectiveSampleSize(),
    }
    for name, average in _averages("mi_micro", held).items():
        metrics[name] = MutualInformation(bound, average, target=target)
    return BufferedMetrics(metrics, prefix="train/")


def held_out_metrics(bound: AbstractBound, target: float, held: bool, stage: str) -> MetricCollection:
    """The metrics of validation or test, with the standard errors of the estimates.

    Args:
        bound: As in :func:`training_metrics`.
        target: As there.
        held: As there.
        stage: ``"val"`` or ``"test"``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "log_normalizer": LogNormalizer(bound),
        "effective_sample_size": EffectiveSampleSize(),
    }
    for name, average in _averages("mi", held).items():
        metrics[name] = MutualInformation(bound, average, target=target)
        metrics[standard_error_name(name)] = StandardError(bound, average)
    return MetricCollection(metrics, prefix=f"{stage}/")


def _averages(micro: str, held: bool) -> dict[str, Average]:
    averages: dict[str, Average] = {micro: "micro", "mi_macro": "macro"}
    return averages | {"mi_plug_in": "plug-in"} if held else averages


@final
class Accuracies(nn.Module):
    """The shares of right predictions in an epoch: of the pairing, where it predicts labels, and of an online probe.

    A sample whose logits are infinite or not a number counts as wrong.

    Args:
        stage: ``"val"`` or ``"test"``.
        pairs: Predicts where it has a method ``predict(critic, x)``.
        probe: May be None.
    """

    def __init__(self, stage: str, pairs: AbstractPairing, probe: OnlineLinearProbe | None) -> None:
        super().__init__()
        # Binary accuracy counts in integers, so half precision, which "bf16-true" asks of all states, loses nothing.
        self.of_pairs = BinaryAccuracy() if hasattr(pairs, "predict") else None
        self.of_probe = None if probe is None else BinaryAccuracy()
        self._name = f"{stage}/accuracy"

    def update(
        self, output: StepOutput, critic: AbstractCritic, pairs: AbstractPairing, probe: OnlineLinearProbe | None
    ) -> None:
        """Take in one batch; without labels there is nothing to count."""
        labels = output.labels
        if labels is None:
            return
        if self.of_pairs is not None:
            predicted: Tensor = pairs.predict(critic, output.features)  # type: ignore[operator]  # not Tensor: a method
            _count(self.of_pairs, predicted == labels)
        if self.of_probe is not None and probe is not None:
            logits: Tensor = probe(output.features)
            _count(self.of_probe, (logits.argmax(dim=1) == labels) & torch.isfinite(logits).all(dim=1))

    def named(self) -> dict[str, Metric]:
        """The metrics by the names they are logged under."""
        named = {self._name: self.of_pairs, "probe/online_accuracy": self.of_probe}
        return {name: metric for name, metric in named.items() if metric is not None}


def _count(metric: BinaryAccuracy, correct: Tensor) -> None:
    metric.update(correct.long(), torch.ones_like(correct, dtype=torch.long))
