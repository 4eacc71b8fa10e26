"""Metrics of an epoch: estimates with standard errors, and accuracies in validation and test."""

import copy
import warnings
from typing import final

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic
from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.metrics import EffectiveSampleFraction, LogNormalizer, MutualInformation, StandardError
from lightning_mi.metrics._buffer import BufferedMetrics
from lightning_mi.metrics.readout import Average
from lightning_mi.pairs import AbstractPairing
from lightning_mi.training.online_probe import OnlineLinearProbe
from lightning_mi.training.step import StepOutput

_LOADER = "/dataloader_idx_"  # Lightning's suffix for one of several data loaders


def standard_error_name(monitor: str) -> str:
    """The log name of an estimate's standard error.

    Example:
        >>> standard_error_name("val/mi"), standard_error_name("val/mi/dataloader_idx_1")
        ('val/mi_standard_error', 'val/mi_standard_error/dataloader_idx_1')
    """
    name, loader, index = monitor.partition(_LOADER)
    return f"{name}_standard_error{loader}{index}"


def estimate_name(monitor: str) -> str:
    """The log name of a metric without Lightning's suffix for one of several data loaders.

    Example:
        >>> estimate_name("val/mi/dataloader_idx_1")
        'val/mi'
    """
    return monitor.partition(_LOADER)[0]


def loader_name(name: str, loader: int, num_loaders: int) -> str:
    """The log name of a metric of one of several data loaders, as Lightning writes it.

    Example:
        >>> loader_name("val/mi", 0, num_loaders=1), loader_name("val/mi", 0, num_loaders=2)
        ('val/mi', 'val/mi/dataloader_idx_0')
    """
    return name if num_loaders == 1 else f"{name}{_LOADER}{loader}"


def num_val_loaders(trainer: L.Trainer) -> int:
    """The number of data loaders of the current validation or sanity check."""
    return len(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)


def training_metrics(bound: AbstractBound, target: float, holds_target: bool) -> BufferedMetrics:
    """The metrics of a training epoch. Names that are also logged at each step get the suffix ``_micro``.

    Args:
        bound: The bound.
        target: Target of the log-normalizer, nats.
        holds_target: Whether training holds the log-normalizer at the target, which the plug-in estimate requires.
    """
    metrics: dict[str, Metric] = {
        "log_normalizer_micro": LogNormalizer(bound),
        "effective_sample_fraction": EffectiveSampleFraction(),
    }
    for name, average in _averages("mi_micro", holds_target).items():
        metrics[name] = MutualInformation(bound, average, target=target)
    return BufferedMetrics(metrics, prefix="train/")


def _averages(micro: str, holds_target: bool) -> dict[str, Average]:
    averages: dict[str, Average] = {micro: "micro", "mi_macro": "macro"}
    return averages | {"mi_plug_in": "plug-in"} if holds_target else averages


def log_metrics(module: L.LightningModule, metrics: "StageMetrics", num_loaders: int) -> None:
    """Log the metrics of a stage; the progress bar shows ``val/mi`` and its standard error."""
    has_bar = module.trainer.progress_bar_callback is not None
    for name, metric in metrics.named(num_loaders).items():
        in_bar = has_bar and name in ("val/mi", standard_error_name("val/mi"))
        module.log(name, metric, metric_attribute=name, add_dataloader_idx=False, prog_bar=in_bar)


@final
class StageMetrics(nn.Module):
    """The metrics of validation or test, separate for each data loader.

    Args:
        first: The metrics of the first data loader; others get a copy.

    Example:
        >>> from lightning_mi import bounds, pairs
        >>> first = LoaderMetrics("val", bounds.DV(), 0.0, holds_target=False, pairs=pairs.AllPairs(), probe=None)
        >>> metrics = StageMetrics(first)
        >>> [name for name in metrics.named(num_loaders=2) if name.startswith("val/mi/")]
        ['val/mi/dataloader_idx_0', 'val/mi/dataloader_idx_1']
    """

    def __init__(self, first: "LoaderMetrics") -> None:
        super().__init__()
        self._loaders = nn.ModuleList([first])

    def update(
        self,
        output: StepOutput,
        critic: AbstractCritic,
        pairs: AbstractPairing,
        probe: OnlineLinearProbe | None,
        loader: int = 0,
    ) -> None:
        """Add a batch of a data loader."""
        self._require(loader + 1)
        metrics = self._loaders[loader]
        assert isinstance(metrics, LoaderMetrics)
        metrics.update(output, critic, pairs, probe)

    def named(self, num_loaders: int = 1) -> dict[str, Metric]:
        """The metrics of all data loaders by log name."""
        self._require(num_loaders)
        return {
            loader_name(name, i, num_loaders): metric
            for i, metrics in enumerate(self._loaders)
            if isinstance(metrics, LoaderMetrics) and i < num_loaders
            for name, metric in metrics.named().items()
        }

    def _require(self, num_loaders: int) -> None:
        while len(self._loaders) < num_loaders:
            metrics = copy.deepcopy(self._loaders[0])
            assert isinstance(metrics, LoaderMetrics)
            metrics.reset()
            # Lightning warns about modules in evaluation mode, and does not restore the mode of a module created now.
            self._loaders.append(metrics.train())


@final
class LoaderMetrics(nn.Module):
    """Estimates with standard errors, and accuracies, over one data loader.

    A sample with NaN or infinite logits counts as wrong.

    Args:
        stage: ``"val"`` or ``"test"``.
        bound: As in :func:`training_metrics`.
        target: As in :func:`training_metrics`.
        holds_target: As in :func:`training_metrics`.
        pairs: Its accuracy is measured if it has a method ``predict(critic, x)``.
        probe: Its accuracy is measured; may be None.
    """

    def __init__(
        self,
        stage: str,
        bound: AbstractBound,
        target: float,
        holds_target: bool,
        pairs: AbstractPairing,
        probe: OnlineLinearProbe | None,
    ) -> None:
        super().__init__()
        metrics: dict[str, Metric | MetricCollection] = {
            "log_normalizer": LogNormalizer(bound),
            "effective_sample_fraction": EffectiveSampleFraction(),
        }
        for name, average in _averages("mi", holds_target).items():
            metrics[name] = MutualInformation(bound, average, target=target)
            metrics[standard_error_name(name)] = StandardError(bound, average)
        self.estimates = MetricCollection(metrics, prefix=f"{stage}/")
        # Binary accuracy counts in integers: exact although "bf16-true" casts metric states to half precision.
        self.pairs_accuracy = BinaryAccuracy() if hasattr(pairs, "predict") else None
        self.probe_accuracy = None if probe is None else BinaryAccuracy()
        self._accuracy = f"{stage}/accuracy"
        self._batches = self._estimates = 0

    def update(
        self, output: StepOutput, critic: AbstractCritic, pairs: AbstractPairing, probe: OnlineLinearProbe | None
    ) -> None:
        """Add a batch."""
        self.estimates.update(terms=output.terms, scores=output.scores)
        self._batches += 1
        self._estimates += bool(output.scores.num_marginal)
        labels = output.labels
        if labels is None:
            return
        if self.pairs_accuracy is not None:
            predicted: Tensor = pairs.predict(critic, output.features)  # type: ignore[operator]  # not Tensor: a method
            _count(self.pairs_accuracy, predicted == labels)
        if self.probe_accuracy is not None and probe is not None:
            logits: Tensor = probe(output.features)
            _count(self.probe_accuracy, (logits.argmax(dim=1) == labels) & torch.isfinite(logits).all(dim=1))

    def named(self) -> dict[str, Metric]:
        """The metrics by log name."""
        if self._batches and not self._estimates:
            warnings.warn(
                f"Got {self._batches} batches without marginal pairs: {', '.join(map(str, self.estimates.keys()))} are "
                "NaN. Raise the batch size to two or more.",
                MINumericalWarning,
                stacklevel=2,
            )
        self._batches = self._estimates = 0
        accuracies = {self._accuracy: self.pairs_accuracy, "probe/online_accuracy": self.probe_accuracy}
        estimates = dict(self.estimates.items(keep_base=False, copy_state=False))
        return estimates | {name: metric for name, metric in accuracies.items() if metric is not None}

    def reset(self) -> None:
        """Clear all batches."""
        for metric in (self.estimates, self.pairs_accuracy, self.probe_accuracy):
            if metric is not None:
                metric.reset()


def _count(metric: BinaryAccuracy, correct: Tensor) -> None:
    metric.update(correct.long(), torch.ones_like(correct, dtype=torch.long))
