"""Probes: evaluate the representation by labels, with nearest neighbors and a linear classifier."""

from collections.abc import Iterable
from itertools import islice
from typing import Any, cast, final

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_mi._compat.lightning_loops import transfer_batch
from lightning_mi.metrics import LinearProbeAccuracy, NearestNeighborAccuracy
from lightning_mi.metrics.nearest_neighbor import Similarity
from lightning_mi.module import MIEstimationModule
from lightning_mi.training.epoch_metrics import loader_name
from lightning_mi.utilities.checks import check_whole
from lightning_mi.utilities.evaluation_mode import evaluation_mode
from lightning_mi.utilities.labels import is_labels, missing_labels
from lightning_mi.utilities.protocols import AugmentsEvaluation, HasReferenceLoader


@final
class Probes(L.Callback):
    """Evaluates the encoder's first representation: k-nearest-neighbor and linear classification of its features.

    Logs ``probe/nearest_neighbor`` and ``probe/accuracy`` (linear) of the validation set, in the scheduled epochs, and
    of the test set; with several dataloaders one value for each, with Lightning's suffix. It evaluates the features of
    the validation and test steps. The reference features come from one pass over the training samples in evaluation
    mode and without gradient. By default the linear classifier, which takes the longest, is fitted at test time only.
    The sanity check is not probed. The training does not change: training modes and RNG states are restored.

    Training samples come from the data module's ``reference_dataloader()`` (without augmentation, each sample once over
    all ranks). Without that method they come from the training dataloader of the last ``fit``, with its augmentation,
    shuffling, padding and dropped samples. A batch contains one view, or all views of the pairing, and then the labels.
    With the trainer's ``fast_dev_run=n``, n of these batches are read.

    If the views of validation and test are augmented (the data module has ``augments_evaluation``), the evaluated
    samples are those of its ``reference_dataloader("val")`` or ``("test")``, without augmentation.

    Args:
        nearest_neighbor: True to classify by nearest neighbors.
        linear: True to fit a linear classifier.
        k: Number of neighbors that vote.
        similarity: ``"inner_product"`` or ``"cosine"``.
        C: Inverse strength of the linear classifier's penalty, as in scikit-learn.
        max_iter: Maximum number of iterations of its solver.
        every_n_epochs: Nearest neighbors run in the validation of every n-th epoch, and in ``Trainer.validate``; 0 for
            test only.
        linear_every_n_epochs: The same for the linear classifier.
        head: Also evaluate the output of the module's head, as ``probe/head_nearest_neighbor`` and
            ``probe/head_accuracy``.

    Raises:
        ValueError: An argument is out of range, or both probes are off.

    Source: Choi and Lee 2022, section 5 (nearest neighbor); Chen et al. 2020 (linear evaluation).

    Example:
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[Probes(k=5, every_n_epochs=10)])
    """

    def __init__(
        self,
        nearest_neighbor: bool = True,
        linear: bool = True,
        *,
        k: int = 1,
        similarity: Similarity = "inner_product",
        C: float = 1.0,
        max_iter: int = 1000,
        every_n_epochs: int = 1,
        linear_every_n_epochs: int = 0,
        head: bool = False,
    ) -> None:
        for name, number in (("every_n_epochs", every_n_epochs), ("linear_every_n_epochs", linear_every_n_epochs)):
            check_whole(name, number, 0)
        self._metrics: dict[str, Metric] = {}
        self._every: dict[str, int] = {}
        if nearest_neighbor:
            self._metrics["probe/nearest_neighbor"] = NearestNeighborAccuracy(k=k, similarity=similarity)
            self._every["probe/nearest_neighbor"] = every_n_epochs
        if linear:
            self._metrics["probe/accuracy"] = LinearProbeAccuracy(C=C, max_iter=max_iter)
            self._every["probe/accuracy"] = linear_every_n_epochs
        if not self._metrics:
            raise ValueError(
                "Got nearest_neighbor=False and linear=False: at least one probe is needed. Omit one of them."
            )
        self._prefixes = ("", "head_") if head else ("",)
        self._running: list[dict[str, MetricCollection]] = []  # by prefix, one for each dataloader
        self._train_loader: Any = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the module's steps return features, and that it has a head if one is probed.

        Raises:
            TypeError: The module is not an :class:`~lightning_mi.MIEstimationModule`.
            ValueError: A head is to be probed, and the module has none.
        """
        if not isinstance(pl_module, MIEstimationModule):
            raise TypeError(
                f"Got a module of type {type(pl_module).__name__}: Probes reads the features and labels that the steps "
                "of an MIEstimationModule return."
            )
        if "head_" in self._prefixes and not (
            pl_module.heads or type(pl_module).project is not MIEstimationModule.project
        ):
            raise ValueError(
                "Got Probes(head=True) for a module without a head: its loss reads the encoder's features. Give the "
                "module a head, or omit head=True."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Store the training dataloader: the trainer drops it before testing."""
        self._train_loader = trainer.train_dataloader

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raise at the first batch without labels, rather than after the first epoch."""
        _features_and_labels(outputs, pl_module, batch)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the scheduled probes."""
        if trainer.sanity_checking:
            self._running = []
            return
        epoch = trainer.current_epoch + 1 if trainer.state.fn == "fit" else 0  # 0: every scheduled probe
        scheduled = [name for name, every in self._every.items() if every and epoch % every == 0]
        self._start(scheduled, pl_module, len(trainer.num_val_batches))

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start all probes."""
        self._start(list(self._metrics), pl_module, len(trainer.num_test_batches))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the batch's features."""
        features, labels = _features_and_labels(outputs, pl_module, batch)
        if self._running and _clean_loader(trainer) is None:
            _update(self._running[dataloader_idx], pl_module, features, labels)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the batch's features."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute and log the accuracies."""
        self._finish(trainer, pl_module)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute and log the accuracies."""
        self._finish(trainer, pl_module)

    def _start(self, names: list[str], pl_module: L.LightningModule, num_loaders: int) -> None:
        def collection(prefix: str) -> MetricCollection:  # its metrics share one copy of the features
            metrics = {name.replace("probe/", f"probe/{prefix}"): self._metrics[name].clone() for name in names}
            return MetricCollection(dict(metrics)).to(pl_module.device)

        loaders = range(num_loaders if names else 0)
        self._running = [{prefix: collection(prefix) for prefix in self._prefixes} for _ in loaders]

    def _finish(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        running, self._running = self._running, []
        if not running:
            return
        assert isinstance(pl_module, MIEstimationModule)
        cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        with isolate_rng(include_cuda=cuda), evaluation_mode(pl_module), torch.no_grad():
            limit = int(getattr(trainer, "fast_dev_run", 0)) or None
            for batch in islice(_reference_loader(trainer, self._train_loader), limit):
                features, labels = _encode(trainer, pl_module, batch)
                for collections in running:
                    _update(collections, pl_module, features, labels, reference=True)
            for batch in islice(_clean_loader(trainer) or (), limit):
                _update(running[0], pl_module, *_encode(trainer, pl_module, batch))
            for loader, collections in enumerate(running):
                values = {name: value for each in collections.values() for name, value in each.compute().items()}
                named = {loader_name(name, loader, len(running)): value for name, value in values.items()}
                # Equal on all ranks: sync_dist only avoids Lightning's warning.
                pl_module.log_dict(named, sync_dist=True, add_dataloader_idx=False)


def _features_and_labels(outputs: Any, pl_module: L.LightningModule, batch: Any) -> tuple[Tensor, Tensor]:
    assert isinstance(pl_module, MIEstimationModule)
    if outputs["labels"] is None:
        raise missing_labels(pl_module.unpack_batch(batch), pl_module.pairs.num_views, "Probes")
    return outputs["features"], outputs["labels"]


def _update(
    collections: dict[str, MetricCollection],
    pl_module: L.LightningModule,
    features: Tensor,
    labels: Tensor,
    reference: bool = False,
) -> None:
    """Add features of a batch, and the head's output for them, to the metrics."""
    assert isinstance(pl_module, MIEstimationModule)
    for prefix, metrics in collections.items():
        probed = pl_module.project(features)[0].detach() if prefix else features
        metrics.update(probed, labels, reference=reference)


def _encode(trainer: L.Trainer, pl_module: MIEstimationModule, batch: Any) -> tuple[Tensor, Tensor]:
    """The features of a batch, in the trainer's precision and on its device, and the labels."""
    entries = list(pl_module.unpack_batch(transfer_batch(trainer, pl_module, batch)))
    if len(entries) < 2 or not is_labels(entries[-1]):
        raise missing_labels(entries, max(len(entries), 1), "Probes, of the training samples,")
    views = entries[:-1][: pl_module.pairs.num_views]
    with trainer.precision_plugin.forward_context():
        return pl_module.encode(*views)[0].detach(), entries[-1]


def _clean_loader(trainer: L.Trainer) -> Iterable[Any] | None:
    """The evaluated samples without augmentation; None if the steps have them."""
    data = getattr(trainer, "datamodule", None)
    if not (isinstance(data, AugmentsEvaluation) and data.augments_evaluation):
        return None
    return data.reference_dataloader("test" if trainer.testing else "val")


def _reference_loader(trainer: L.Trainer, loader: Any) -> Iterable[Any]:
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, HasReferenceLoader):
        return data.reference_dataloader()
    advice = (
        "Give a LightningDataModule with a `reference_dataloader()`: the training samples with their labels, without "
        "augmentation, each once over all ranks."
    )
    if loader is None:
        raise ValueError(
            f"Got no training samples: the data module has no reference_dataloader and nothing was fitted. {advice}"
        )
    if isinstance(loader, list | tuple | dict):
        raise TypeError(
            f"Got several training dataloaders: Probes cannot choose the reference samples among them. {advice}"
        )
    # A second iteration over such a dataloader would disturb the training in progress.
    for attribute, kind in (("persistent_workers", "persistent workers"), ("state_dict", "a state dict")):
        if getattr(loader, attribute, False):
            raise ValueError(f"Got a training dataloader with {kind} ({type(loader).__name__}). {advice}")
    return cast("Iterable[Any]", loader)
