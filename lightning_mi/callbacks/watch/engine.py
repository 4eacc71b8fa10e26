"""AbstractWatch: at each validation, fit probes to pairs of variables of any module, and log what they read."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lightning_mi._compat.lightning_logs import logged_step
from lightning_mi.callbacks.tensorboard.layout import TensorBoardLayout
from lightning_mi.callbacks.watch.collector import Collector, NamedRows, Sizes
from lightning_mi.callbacks.watch.layers import Reduction
from lightning_mi.callbacks.watch.reading import Reading, read_pair
from lightning_mi.callbacks.watch.replay import Forward, find_forward, isolated_rng
from lightning_mi.callbacks.watch.report import reading_table
from lightning_mi.callbacks.watch.samples import RecentBatches, warn_of_rows
from lightning_mi.callbacks.watch.sources import Key, Source, input_source
from lightning_mi.exceptions import InexactResumeWarning, MIWarning
from lightning_mi.training.charts import add_charts, select_charts
from lightning_mi.training.epoch_metrics import standard_error_name
from lightning_mi.utilities.checks import check_whole
from lightning_mi.utilities.distributed import gather_objects, get_rank, world_size

_SEED = 0


class Pair(NamedTuple):
    """Two variables whose mutual information is read.

    Attributes:
        name: The log name.
        x: The first variable.
        y: The second.
        noise: Deviation of the noise added to x, in units of the deviation of its features.
    """

    name: str
    x: Source
    y: Source
    noise: float = 0.0


class Record(NamedTuple):
    """The readings of one validation.

    Attributes:
        epoch: From 0.
        step: The training step, as in the logs.
        readings: By log name.
    """

    epoch: int
    step: int
    readings: dict[str, Reading]


class AbstractWatch(L.Callback, ABC):
    """Base of the callbacks that read mutual information in a module.

    Args:
        reduction: How the output of a layer becomes one row for each sample.
        forward: ``forward(pl_module, batch)``, the forward pass to replay; by default the module's.
        input: The network's input in a batch.
        buffer: Training samples that probes are fitted to, over all ranks.
        held_out: Validation samples that they are read on, at most, over all ranks.
        hidden: Width of the probes' hidden layers; 0 for linear probes.
        every_n_epochs: Readings are taken in the validations of every n-th epoch.
    """

    def __init__(
        self,
        reduction: Reduction,
        forward: Forward | None,
        input: Key | None,
        buffer: int,
        held_out: int,
        hidden: int,
        every_n_epochs: int,
    ) -> None:
        if not callable(reduction) and reduction not in ("mean", "flatten"):
            raise ValueError(
                f"Got reduction={reduction!r}: it is 'mean', 'flatten', or a function of a layer's output."
            )
        if forward is not None and not callable(forward):
            raise TypeError(f"Got forward={forward!r}: it is a function of the module and a batch.")
        for name, number, least in (("buffer", buffer, 16), ("held_out", held_out, 16), ("hidden", hidden, 0)):
            check_whole(name, number, least)
        check_whole("every_n_epochs", every_n_epochs, 1)
        self._reduction, self._forward, self._input = reduction, forward, input_source(input)
        self._sizes, self._hidden, self._every_n_epochs = Sizes(buffer, held_out), hidden, every_n_epochs
        self._reset()

    @abstractmethod
    def find_pairs(self, pl_module: L.LightningModule) -> list[Pair]:
        """The pairs to read, from the module's layers."""

    @abstractmethod
    def draw(self, trainer: L.Trainer) -> None:
        """Draw the history so far; rank 0 calls it after each reading and at the end."""

    @property
    def history(self) -> list[Record]:
        """The readings of all validations since the last ``trainer.fit`` began."""
        return list(self._history)

    def table(self) -> str:
        """The last readings, as text; nats."""
        return reading_table(self._history[-1].readings) if self._history else "No reading yet."

    def _reset(self) -> None:
        self._history: list[Record] = []
        self._pairs: list[Pair] = []
        self._recent = RecentBatches()
        self._collector: Collector | None = None
        self._scheduled = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Reset the state, before Lightning loads a checkpoint."""
        if stage == "fit":
            self._reset()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the layers for ``trainer.validate``, whose probes are cross-fitted: there are no training samples."""
        if trainer.state.fn == "validate":
            self._collector = self._make_collector(trainer, pl_module, None)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the layers.

        Raises:
            MisconfigurationException: There is no validation, or another callback reads the same pair.
            WatchError: A layer does not exist.

        Warns:
            MIWarning: The module has no forward.
        """
        if not trainer.enable_validation:
            raise MisconfigurationException(
                f"Got no validation: {type(self).__name__} reads on held-out samples. Pass validation data, and leave "
                "Trainer(limit_val_batches) above 0."
            )
        forward = find_forward(pl_module, self._forward, self._input)
        self._collector = self._make_collector(trainer, pl_module, forward)
        if forward is None:
            rank_zero_warn(
                f"{type(pl_module).__name__} has no forward: {type(self).__name__} fits its probes to held-out samples "
                "only, by cross-fitting, and they read less. Pass forward=lambda module, batch: ..., which runs the "
                "layers.",
                category=MIWarning,
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Store the batch; replay the first one, so that errors are raised at once."""
        if self._collector is not None:
            self._collector.add_training_batch(trainer, pl_module, batch, self._recent)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the hooks, if a reading is scheduled."""
        fits = trainer.state.fn == "fit" and not trainer.sanity_checking
        due = not fits or (trainer.current_epoch + 1) % self._every_n_epochs == 0
        self._scheduled = due and self._collector is not None
        if self._scheduled and self._collector is not None:
            self._collector.start()

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Start recording a step."""
        if self._collector is not None:
            self._collector.start_step()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the rows of the step; of several data loaders, those of the first."""
        if self._scheduled and dataloader_idx == 0 and self._collector is not None:
            self._collector.add_step(trainer, pl_module, batch, outputs)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fit the probes and log their readings."""
        if not self._scheduled or self._collector is None:
            return
        self._collector.stop()
        if trainer.sanity_checking:
            return
        with isolated_rng(), torch.inference_mode(False), torch.enable_grad():
            held_out = self._collector.held_out_rows()
            fitted = self._collector.fit_rows(trainer, pl_module, self._recent)
            warn_of_rows(held_out, "held-out")
            warn_of_rows(fitted, "training")
            readings = self._read(fitted, held_out)
        self._recent.clear()
        self._history.append(Record(trainer.current_epoch, logged_step(trainer), readings))
        logs: dict[str, float] = {}
        for name, reading in readings.items():
            logs |= {name: reading.value, standard_error_name(name): reading.standard_error}
            logs |= {f"{name}_train_gap": reading.gap, f"{name}_limit": reading.limit}
        # Equal on all ranks: sync_dist only avoids Lightning's warning.
        pl_module.log_dict(logs, sync_dist=True, add_dataloader_idx=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Update the charts and draw, if there is a new reading."""
        if not self._scheduled or trainer.sanity_checking or not trainer.is_global_zero:
            return
        if not any(isinstance(callback, TensorBoardLayout) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            add_charts(trainer.loggers, select_charts(trainer.callback_metrics))
        self.draw(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the table of the last readings.

        Warns:
            MIWarning: There was none.
        """
        if self._history:
            rank_zero_info(f"{type(self).__name__} after epoch {self._history[-1].epoch}:\n{self.table()}")
        elif not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                f"{type(self).__name__} took no reading: no validation ran in an epoch that every_n_epochs="
                f"{self._every_n_epochs} selects. Validate more often, or lower every_n_epochs.",
                category=MIWarning,
            )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remove the hooks."""
        if self._collector is not None:
            self._collector.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the hooks: Lightning does not call ``teardown`` after an error."""
        self.teardown(trainer, pl_module, "fit")

    def state_dict(self) -> dict[str, Any]:
        """The history; plain data."""
        records = [(r.epoch, r.step, {n: list(v) for n, v in r.readings.items()}) for r in self._history]
        return {"history": [list(record) for record in records]}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the training batches of all ranks since the last reading: none right after a validation.

        Warns:
            InexactResumeWarning: A batch holds more than tensors and plain values.
        """
        local = self._recent.state()
        failed = trainer.interrupted and not trainer.received_sigterm  # the other ranks may not reach the collective
        ranks = [local] if failed else gather_objects(local)
        if None in ranks:
            rank_zero_warn(
                f"{type(self).__name__} cannot save the training batches since its last reading: they hold more than "
                "tensors and plain values. After a resume, its next reading uses the batches since the resume.",
                category=InexactResumeWarning,
            )
            ranks = []
        checkpoint["callbacks"][self.state_key]["recent"] = ranks

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore history and batches; batches of another world size are dropped."""
        self._history = [
            Record(epoch, step, {name: Reading(*reading) for name, reading in readings.items()})
            for epoch, step, readings in state_dict["history"]
        ]
        ranks = state_dict.get("recent", [])
        if len(ranks) == world_size():
            self._recent.load(ranks[get_rank()])

    def _make_collector(self, trainer: L.Trainer, pl_module: L.LightningModule, forward: Forward | None) -> Collector:
        self._pairs = self.find_pairs(pl_module)
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        others = [other for other in callbacks if isinstance(other, AbstractWatch) and other is not self]
        taken = {pair.name for other in others for pair in other._pairs}
        if equal := [pair.name for pair in self._pairs if pair.name in taken]:
            raise MisconfigurationException(
                f"Got two callbacks that log {equal[0]!r}: Lightning would log the mean of both. Read each pair by one "
                "callback, and another noise in another training."
            )
        sources = list({source.name: source for pair in self._pairs for source in (pair.x, pair.y)}.values())
        return Collector(pl_module, sources, self._reduction, forward, self._sizes)

    def _read(self, fitted: NamedRows, held_out: NamedRows) -> dict[str, Reading]:
        """The readings of all pairs; the ranks share the fits."""
        local: dict[str, Reading] = {}
        for pair in self._pairs[get_rank() :: world_size()]:
            x, y = pair.x.name, pair.y.name
            fit_rows = (fitted[x], fitted[y]) if x in fitted and y in fitted else None
            local[pair.name] = read_pair(
                fit_rows, (held_out[x], held_out[y]), noise=pair.noise, hidden=self._hidden, seed=_SEED
            )
        read = {name: reading for part in gather_objects(local) for name, reading in part.items()}
        return {pair.name: read[pair.name] for pair in self._pairs}
