"""Collector: the rows of all sources, of validation steps and of replayed training batches."""

import math
from typing import Any, NamedTuple, final

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_mi.callbacks.watch.layers import LayerRecorder, Reduction, find_layers
from lightning_mi.callbacks.watch.replay import Forward, Replay, isolated_rng, warn_of_other_rows
from lightning_mi.callbacks.watch.samples import RecentBatches, evenly_spaced, gather_rows
from lightning_mi.callbacks.watch.sources import Source, Step
from lightning_mi.exceptions import MIWarning, WatchError
from lightning_mi.utilities.distributed import all_gather_ints

_FEW = 256  # training samples, below which a probe learns little

NamedRows = dict[str, Tensor]


class Sizes(NamedTuple):
    """Numbers of samples, over all ranks.

    Attributes:
        buffer: Training samples that probes are fitted to.
        held_out: Validation samples that they are read on, at most.
    """

    buffer: int
    held_out: int


@final
class Collector:
    """Collects the rows of sources.

    Args:
        pl_module: The module; its layers are found.
        sources: The sources.
        reduction: How the output of a layer becomes rows.
        forward: The forward pass to replay; None if there is none.
        sizes: Numbers of samples.

    Raises:
        WatchError: A layer does not exist.
    """

    def __init__(
        self,
        pl_module: L.LightningModule,
        sources: list[Source],
        reduction: Reduction,
        forward: Forward | None,
        sizes: Sizes,
    ) -> None:
        self._sources, self._sizes = sources, sizes
        self._replayable = [source for source in sources if source.kind != "outputs"]
        layers = find_layers(pl_module, [str(source.key) for source in sources if source.kind == "layer"])
        self._recorder = LayerRecorder(layers, reduction)
        self._replay = None if forward is None else Replay(forward, self._recorder)
        self._steps: list[NamedRows] = []
        self._checked = self._compared = False

    def add_training_batch(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, recent: RecentBatches
    ) -> None:
        """Store a batch, if it can be replayed; replay the first one, so that errors are raised at once."""
        if self._replay is None:
            return
        if not self._checked:
            named_rows(self._replayable, self._replay.step(trainer, pl_module, batch))
            self._checked = True
        recent.append(batch, math.ceil(self._sizes.buffer / trainer.world_size))

    def start(self) -> None:
        """Start to record validation steps."""
        self._steps = []
        self._recorder.attach()

    def start_step(self) -> None:
        """Drop the layers' outputs so far."""
        self._recorder.clear()

    def add_step(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, outputs: Any) -> None:
        """Add the rows of a validation step; compare the first one with its replay."""
        step = Step(self._recorder.take(), batch, outputs)
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        quota = math.ceil(self._sizes.held_out / trainer.world_size / batches[0])  # 0 without a known length
        self._steps.append({name: rows[: quota or None] for name, rows in named_rows(self._sources, step).items()})
        if self._replay is None or self._compared:
            return
        self._compared = True
        self.stop()
        first = self._replay.step(trainer, pl_module, batch)
        with isolated_rng():
            torch.rand(1, device=pl_module.device)  # other random numbers for random layers
            second = self._replay.step(trainer, pl_module, batch)
        warn_of_other_rows(step, (first, second), pl_module)
        self._recorder.attach()

    def stop(self) -> None:
        """Remove the hooks."""
        self._recorder.detach()

    def held_out_rows(self) -> NamedRows:
        """The rows of all validation steps of all ranks; none if there was no step."""
        steps, self._steps = self._steps, []
        if not steps:
            return {}
        rows = gather_rows(_joined(steps))
        return {name: evenly_spaced(values, self._sizes.held_out) for name, values in rows.items()}

    def fit_rows(self, trainer: L.Trainer, pl_module: L.LightningModule, recent: RecentBatches) -> NamedRows:
        """The rows of recent training batches of all ranks by the present network; none without a forward to replay.

        Warns:
            MIWarning: There are few of them.
        """
        counts = all_gather_ints([len(recent.batches)], pl_module.device)
        if self._replay is None or min(count for (count,) in counts) == 0:
            return {}
        newest = math.ceil(self._sizes.buffer / trainer.world_size)
        steps = [self._replay.step(trainer, pl_module, batch) for batch in recent.batches]
        joined = _joined([named_rows(self._replayable, step) for step in steps])
        rows = gather_rows({name: values[-newest:] for name, values in joined.items()})
        num_rows = len(next(iter(rows.values())))
        if num_rows < min(_FEW, self._sizes.buffer) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                f"Got {num_rows} training samples since the last reading: probes learn little from them and read less. "
                "Validate less often, or set every_n_epochs.",
                category=MIWarning,
            )
        return rows


def named_rows(sources: list[Source], step: Step) -> NamedRows:
    """The rows of each source in a step, by name.

    Raises:
        WatchError: Their numbers differ.
    """
    rows = {source.name: source.rows(step) for source in sources}
    if len(set(map(len, rows.values()))) > 1:
        found = ", ".join(f"{len(values)} rows of {name}" for name, values in rows.items())
        raise WatchError(
            f"Got {found} in one step: each sample has one row of each. If a layer has the batch as its second "
            "dimension, pass reduction=lambda output: output.mean(dim=0)."
        )
    return rows


def _joined(steps: list[NamedRows]) -> NamedRows:
    return {name: torch.cat([step[name] for step in steps]) for name in steps[0]}
